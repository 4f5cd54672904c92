"""The main job in minutes: plain CLIP, fine-tuning on ground-truth masks, and what it changes.

Evaluates the CLIP of the built-in shapes world, fine-tunes it with ``train_maskclippp.py``,
evaluates again, prints what changed, and compares a trained generator with superpixels;
``report.html`` adds pictures. Nothing is downloaded.

    python -m shapes.quickstart [--output output/quickstart] [KEY VALUE ...]
"""

import argparse
import json
import math
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from maskclippp.data.shapes.vocabulary import CLASSES
from shapes import report
from shapes.protocol import (
    COLUMNS,
    EVALUATIONS,
    GROUPS,
    MASK_EVALUATIONS,
    TRAINED_GENERATOR,
    TRUE_MASKS,
    Evaluation,
    Scores,
    evaluate,
    read_class_scores,
    train,
)
from shapes.report import Gain, Table, View
from shapes.study import SETTINGS, mean_and_spread

REPOSITORY = Path(__file__).resolve().parents[1]

CONFIGS = REPOSITORY / "configs" / "shapes"
BEFORE, AFTER = CONFIGS / "plain_clip.yaml", CONFIGS / "linear_psm.yaml"
WITH_GENERATOR = CONFIGS / "linear_psm_fcclip.yaml"
OWN_PICTURE = """
Segment a picture of your own into your own words:

    python -m maskclippp predict PICTURE --classes "red dotted circle; gray brick wall" \\
        --model {config} --weights {weights}
"""
_TUNING_NOTE = (
    "Percent on validation scenes. Mask accuracy: share of ground-truth masks that get the right "
    "class, mean over classes. With ground-truth masks only the words can be wrong; the other "
    "masks come from the image alone: superpixels, or the masks of a trained generator."
)
_MASKS_NOTE = (
    "The same fine-tuned model names the masks. Classes given: for mIoU each mask takes the class "
    "of most of its pixels, so that only the masks can be wrong; for PQ one mask is matched to "
    "each ground-truth segment, and the others are dropped. The generator "
    "is a small FC-CLIP on the frozen CLIP of this world; it was trained on seen classes only. "
    "The settings of the superpixels were chosen on training scenes."
)
_ITERATION = re.compile(r"\biter: (\d+)")
_INFERENCE = re.compile(r"Inference done (\d+)/(\d+)")


def main() -> None:
    """Run everything; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "quickstart")
    parser.add_argument("--scenes", type=int, default=12, help="scenes in the report")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="KEY VALUE pairs laid over the configs"
    )
    args = parser.parse_args()
    output = args.output.resolve()

    with stage("drawing the scenes"):
        draw_scenes()
    masks_alone = evaluate_all(
        "masks", BEFORE, None, output / "masks", args.options, MASK_EVALUATIONS
    )
    before = evaluate_all("plain CLIP", BEFORE, None, output / "before", args.options)
    weights = fine_tune(output / "training", args.options)
    after = evaluate_all("fine-tuned", AFTER, weights, output / "after", args.options)

    tuning, masks = gain_of_tuning(before, after), gain_of_generator(after | masks_alone)
    page = output / "report.html"
    with stage("writing the report"):
        report.write(
            page,
            headline=headline(before, after),
            views=[
                View("plain CLIP", BEFORE, None, TRUE_MASKS),
                View("fine-tuned", AFTER, weights, TRUE_MASKS),
                View("fine-tuned, generated masks", AFTER, weights, TRAINED_GENERATOR),
            ],
            tables=[
                tuning,
                masks,
                *(table for setting in SETTINGS for table in study_tables(setting)),
                class_table(output / "before", output / "after"),
            ],
            options=args.options,
            num_scenes=args.scenes,
        )
    for table in (tuning, masks):
        say("\n" + tabulate(table.rows, headers=table.headers, floatfmt=".1f", numalign="right"))
    say(f"\nPercent on the validation scenes of the built-in world. Pictures: {page}")
    say(own_picture(weights))


def own_picture(weights: Path) -> str:
    """How to segment a picture with the fine-tuned model."""
    files = {"config": WITH_GENERATOR, "weights": weights}
    return OWN_PICTURE.format(**{key: shlex.quote(str(path)) for key, path in files.items()})


@contextmanager
def stage(title: str, unit: str = "", total: int | None = None) -> Iterator["tqdm[None]"]:
    """A bar while something runs, if the output is a terminal; one line when it is done."""
    started = time.perf_counter()
    with tqdm(desc=title, unit=unit, total=total, leave=False, disable=None) as bar:
        yield bar
    say(f"{title}: {time.perf_counter() - started:.0f} s")


def draw_scenes() -> None:
    """Have the world's two splits drawn, once per machine."""
    from detectron2.data import DatasetCatalog

    for name in ("shapes_train", "shapes_val"):
        DatasetCatalog.get(name)


def evaluate_all(
    title: str,
    config: Path,
    weights: Path | None,
    output: Path,
    options: list[str],
    evaluations: Sequence[Evaluation] = EVALUATIONS,
) -> Scores:
    """All evaluations of one model."""
    scores: Scores = {}
    for evaluation in evaluations:
        with stage(f"{title}, {evaluation.name}", "image") as bar:
            scores |= evaluate(
                config, evaluation, weights, output, options, following(_INFERENCE, bar)
            )
    return scores


def fine_tune(output: Path, options: list[str]) -> Path:
    """Fine-tune on ground-truth masks -> checkpoint."""
    from maskclippp.config.keys import get_cfg
    from maskclippp.config.merging import merge_config_file, merge_options

    cfg = get_cfg()
    merge_config_file(cfg, str(AFTER))
    merge_options(cfg, options)
    title = f"fine-tuning on ground-truth masks, {cfg.SOLVER.MAX_ITER} iterations"
    with stage(title, "iteration", cfg.SOLVER.MAX_ITER) as bar:
        return train(AFTER, output, options, following(_ITERATION, bar))


def following(pattern: re.Pattern[str], bar: "tqdm[None]") -> Callable[[str], None]:
    """Moves a bar to the position (and total) that log lines tell."""

    def on_line(line: str) -> None:
        found = pattern.search(line)
        if found is None:
            return
        if len(found.groups()) > 1:
            bar.total = int(found[2])
        bar.update(int(found[1]) - bar.n)

    return on_line


def headline(before: Scores, after: Scores) -> list[Gain]:
    """The four numbers of the report's first screen."""
    numbers = (
        ("mask accuracy, seen classes", "mask accuracy", "seen"),
        ("mask accuracy, unseen classes", "mask accuracy", "unseen"),
        ("mIoU with generated masks", "mIoU, trained generator", "all"),
        ("PQ with generated masks", "PQ, trained generator", "all"),
    )
    return [Gain(title, before[c][group], after[c][group]) for title, c, group in numbers]


def gain_of_tuning(before: Scores, after: Scores) -> Table:
    """Every metric of plain CLIP and after fine-tuning."""
    rows = [
        _row(group, column, before[column][group], after[column][group])
        for group in GROUPS
        for column in COLUMNS
    ]
    headers = ("classes", "metric", "plain CLIP", "fine-tuned", "gain")
    return Table("What fine-tuning changed", headers, rows, _TUNING_NOTE)


def gain_of_generator(scores: Scores) -> Table:
    """The same model on masks of two generators, and their masks alone."""
    rows = []
    for kind in ("", ", classes given"):
        for group in GROUPS:
            for metric in (f"mIoU{kind}", f"PQ{kind}"):
                first, second = (
                    scores[f"{metric}, {source}"] for source in ("superpixels", "trained generator")
                )
                # Which classes are seen is said by a model that classifies, not by masks.
                if group in first:
                    rows.append(_row(group, metric, first[group], second[group]))
    headers = ("classes", "metric", "superpixels", "trained generator", "gain")
    return Table("Where the masks come from", headers, rows, _MASKS_NOTE)


def class_table(before: Path, after: Path) -> Table:
    """Accuracy and IoU of every class, before and after."""
    mask_accuracy, generated = EVALUATIONS[0], EVALUATIONS[-1]
    columns = [
        read_class_scores(evaluation, folder)[column]
        for evaluation, column in (
            (mask_accuracy, "mask accuracy"),
            (generated, "mIoU, trained generator"),
        )
        for folder in (before, after)
    ]
    rows = [
        (
            category.names[0],
            "seen" if category.is_seen else "unseen",
            *(column.get(category.names[0], math.nan) for column in columns),
        )
        for category in CLASSES
    ]
    headers = (
        *("class", "masks in training"),
        *("mask accuracy, plain CLIP", "fine-tuned"),
        *("IoU with generated masks, plain CLIP", "fine-tuned"),
    )
    note = "Percent. A click on a column's name sorts by it."
    return Table("Every class", headers, rows, note, sortable=True)


def study_tables(setting: str) -> list[Table]:
    """The study of the README, as measured once."""
    path = Path(__file__).with_name(f"study_{setting}.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    return [
        Table(
            f"The study: what the paper claims, over several seeds ({SETTINGS[setting]})",
            ("trained", *COLUMNS),
            [
                (name, *(mean_and_spread(scores, column) for column in COLUMNS))
                for name, scores in content["scores"].items()
            ],
            "All / seen / unseen classes, percent, mean and standard deviation over seeds. "
            f"Measured once; python -m shapes.study --setting {setting} repeats it.",
        ),
        Table(
            f"The claims ({SETTINGS[setting]})",
            ("claim", "verdict", "difference in points, 95 % interval"),
            [(v["claim"], v["verdict"], v["difference"]) for v in content["verdicts"]],
        ),
    ]


def _row(group: str, metric: str, first: float, second: float) -> tuple[str | float, ...]:
    return group, metric, first, second, second - first


def say(text: str) -> None:
    """Print for people; the house rule against print is about libraries."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
