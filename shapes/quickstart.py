"""The main job in minutes: plain CLIP, fine-tuning on true masks, and what it changes.

Evaluates the CLIP of the built-in shapes world, fine-tunes it with ``train_maskclippp.py``,
evaluates again, prints what changed, and compares a trained generator with default superpixels;
``report.html`` adds pictures. Nothing is downloaded.

    python -m shapes.quickstart [--output output/quickstart] [KEY VALUE ...]
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from shapes.protocol import (
    COLUMNS,
    EVALUATIONS,
    GROUPS,
    MASK_EVALUATIONS,
    SUPERPIXELS,
    TRAINED_GENERATOR,
    TRUE_MASKS,
    Evaluation,
    Scores,
    evaluate,
    train,
)
from shapes.report import Row, Table, View

REPOSITORY = Path(__file__).resolve().parents[1]

CONFIGS = REPOSITORY / "configs" / "shapes"
BEFORE, AFTER = CONFIGS / "plain_clip.yaml", CONFIGS / "linear_psm.yaml"
_ITERATION = re.compile(r"\biter: (\d+)")
_INFERENCE = re.compile(r"Inference done (\d+)/(\d+)")


def main() -> None:
    """Run everything; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "quickstart")
    parser.add_argument("--pictures", type=int, default=6, help="rows of pictures in the report")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="KEY VALUE pairs laid over the configs"
    )
    args = parser.parse_args()
    output = args.output.resolve()

    draw_scenes()
    masks_alone = evaluate_all(
        "masks", BEFORE, None, output / "masks", args.options, MASK_EVALUATIONS
    )
    before = evaluate_all("plain CLIP", BEFORE, None, output / "before", args.options)
    weights = fine_tune(output / "training", args.options)
    after = evaluate_all("fine-tuned", AFTER, weights, output / "after", args.options)

    tuning, masks = gain_of_tuning(before, after), gain_of_generator(after | masks_alone)
    report = output / "report.html"
    report.write(
        report,
        tuning=tuning,
        masks=masks,
        views=[
            View("plain CLIP, true masks", BEFORE, None, TRUE_MASKS),
            View("fine-tuned, true masks", AFTER, weights, TRUE_MASKS),
            View("fine-tuned, superpixels", AFTER, weights, SUPERPIXELS),
            View("fine-tuned, trained generator", AFTER, weights, TRAINED_GENERATOR),
        ],
        options=args.options,
        num_pictures=args.pictures,
    )
    for table in (tuning, masks):
        say("\n" + tabulate(table.rows, headers=table.headers, floatfmt=".1f", numalign="right"))
    say(f"\nPercent on the built-in world's validation scenes. Pictures: {report}")


def draw_scenes() -> None:
    """Have the world's two splits drawn, once per machine; shows its own progress."""
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
    """All evaluations of one model, each under a progress bar over images."""
    scores: Scores = {}
    for evaluation in evaluations:
        with tqdm(desc=f"{title}: {evaluation.name}", unit="image") as bar:
            scores |= evaluate(
                config, evaluation, weights, output, options, following(_INFERENCE, bar)
            )
            bar.update((bar.total or 0) - bar.n)
    return scores


def fine_tune(output: Path, options: list[str]) -> Path:
    """Fine-tune on true masks under a progress bar over iterations -> checkpoint."""
    from maskclippp.config.keys import get_cfg
    from maskclippp.config.merging import merge_config_file, merge_options

    cfg = get_cfg()
    merge_config_file(cfg, str(AFTER))
    merge_options(cfg, options)
    with tqdm(desc="fine-tuning on true masks", unit="iteration", total=cfg.SOLVER.MAX_ITER) as bar:
        checkpoint = train(AFTER, output, options, following(_ITERATION, bar))
        bar.update(cfg.SOLVER.MAX_ITER - bar.n)
    return checkpoint


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


def gain_of_tuning(before: Scores, after: Scores) -> Table:
    """Every metric of plain CLIP and after fine-tuning."""
    rows = [
        _row(group, column, before[column][group], after[column][group])
        for group in GROUPS
        for column in COLUMNS
    ]
    return Table(("classes", "metric", "plain CLIP", "fine-tuned", "gain"), rows)


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
    return Table(("classes", "metric", "superpixels", "trained generator", "gain"), rows)


def _row(group: str, metric: str, first: float, second: float) -> Row:
    return group, metric, first, second, second - first


def say(text: str) -> None:
    """Print for people; the house rule against print is about libraries."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
