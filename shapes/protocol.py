"""How models are judged on the built-in world: four evaluations, one row of numbers.

Every training and evaluation is a run of ``train_maskclippp.py`` in a process of its own. The
processes share one import of the libraries, so that they start at once.
"""

import json
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DATASET = "shapes_val"
GROUPS = {"all": "", "seen": "(S)", "unseen": "(U)"}


@dataclass(frozen=True)
class Evaluation:
    """One evaluation run: options that select it, and the metrics read from its results.

    ``metrics`` maps our column name to (task, metric) in ``results.json``.
    """

    name: str
    options: tuple[str, ...]
    metrics: Mapping[str, tuple[str, str]]


_GENERATOR = "MODEL.MASKCLIPPP.SEGMENTOR.NAME"
# Options that choose where masks come from.
TRUE_MASKS = (_GENERATOR, "GTSegmentor")
SUPERPIXELS = (_GENERATOR, "SuperpixelSegmentor")
TRAINED_GENERATOR = (
    *(_GENERATOR, "FCCLIPSegmentor"),
    *("MODEL.MASKCLIPPP.VISUAL_ENCODER_F.NAME", "CLIPConvNeXt"),
)


def _segmentation(name: str, options: tuple[str, ...], source: str) -> Evaluation:
    """Semantic and panoptic segmentation with masks from ``source``."""
    metrics = {f"mIoU, {source}": ("sem_seg", "mIoU"), f"PQ, {source}": ("panoptic_seg", "PQ")}
    return Evaluation(name, options, metrics)


EVALUATIONS = (
    Evaluation(
        "classify ground-truth masks",
        (_GENERATOR, "PanGTSegmentor", "MODEL.MASKCLIPPP.TEST.MASK_ACC", "True"),
        {"mask accuracy": ("mask_acc", "mMaskAcc")},
    ),
    Evaluation(
        "segment with ground-truth masks",
        (*TRUE_MASKS, "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "False"),
        {"mIoU, ground-truth masks": ("sem_seg", "mIoU")},
    ),
    _segmentation("segment with superpixels", SUPERPIXELS, "superpixels"),
    _segmentation("segment with a trained generator", TRAINED_GENERATOR, "trained generator"),
)


def _masks_alone(name: str, options: tuple[str, ...], source: str) -> Evaluation:
    """Masks that get their classes from the ground truth; see ``evaluation.assigned_masks``."""
    kinds = {"mIoU": "sem_seg_majority", "PQ": "panoptic_seg"}
    metrics = {
        f"{metric}, classes given, {source}": (task, metric) for metric, task in kinds.items()
    }
    return Evaluation(name, (*options, *_GIVEN_CLASSES), metrics)


_GIVEN_CLASSES = ("MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY", "True")
MASK_EVALUATIONS = (
    _masks_alone("superpixels alone", SUPERPIXELS, "superpixels"),
    _masks_alone("trained generator alone", TRAINED_GENERATOR, "trained generator"),
)
COLUMNS = tuple(column for evaluation in EVALUATIONS for column in evaluation.metrics)

# column -> group ("all", "seen", "unseen") -> percentage
Scores = dict[str, dict[str, float]]


_POLL_SECONDS = 0.2
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["train_maskclippp"])


def run(arguments: Sequence[str], log_file: Path, on_line: Callable[[str], None]) -> None:
    """Run ``train_maskclippp.py`` with its output in a file, each line shown to ``on_line``.

    Raises:
        SystemExit: it refused its input; its sentence is shown, and its status kept.
        RuntimeError: it failed otherwise; the message has the end of its output.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    log_file.write_text("")
    process = _processes.Process(target=_run_script, args=(list(arguments), str(log_file)))
    process.start()
    lines: list[str] = []
    with log_file.open(errors="replace") as log:
        unfinished = ""
        while True:
            ended = not process.is_alive()
            *whole, unfinished = (unfinished + log.read()).split("\n")
            for line in whole:
                lines.append(line)
                on_line(line)
            if ended:
                break
            process.join(_POLL_SECONDS)
    refused = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if process.exitcode and refused:
        sys.stderr.write("\n".join([*lines[refused[-1] :], ""]))
        sys.exit(process.exitcode)
    if process.exitcode:
        end = "\n".join([*lines[-15:], unfinished])
        command = " ".join(["train_maskclippp.py", *arguments])
        raise RuntimeError(f"{command} failed (all of it in {log_file}):\n{end}")


def _run_script(arguments: list[str], log_file: str) -> None:
    """What the process does."""
    multiprocessing.set_start_method("fork", force=True)  # of loader workers
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["train_maskclippp.py", *arguments]
    runpy.run_path(str(REPOSITORY / "train_maskclippp.py"), run_name="__main__")


def device_arguments() -> list[str]:
    """``--num-gpus`` for this machine."""
    import torch  # late: listing the protocol must not wait for torch

    return ["--num-gpus", "1" if torch.cuda.is_available() else "0"]


def train(
    config: Path, output: Path, options: Sequence[str], on_line: Callable[[str], None]
) -> Path:
    """Fine-tune as ``config`` says, without evaluation -> the last checkpoint."""
    arguments = ["--config-file", str(config), *device_arguments(), "--overwrite"]
    arguments += ["OUTPUT_DIR", str(output)]
    run([*arguments, "DATASETS.TEST", "()", *options], output / "terminal.txt", on_line)
    return output / (output / "last_checkpoint").read_text().strip()


def evaluate(
    config: Path,
    evaluation: Evaluation,
    weights: Path | None,
    output: Path,
    options: Sequence[str],
    on_line: Callable[[str], None],
    dataset: str = DATASET,
) -> Scores:
    """One evaluation of plain CLIP (``weights`` None) or of a checkpoint."""
    folder = output / evaluation.name.replace(" ", "_")
    arguments = ["--config-file", str(config), "--eval-only", *device_arguments()]
    arguments.append("--overwrite")  # the weights differ from those of an earlier call
    arguments += ["OUTPUT_DIR", str(folder), *evaluation.options, *options]
    arguments += ["DATASETS.TEST", f"('{dataset}',)"]
    if weights is not None:
        arguments += ["MODEL.WEIGHTS", str(weights)]
    run(arguments, folder / "terminal.txt", on_line)
    return read_scores(evaluation, output, dataset)


def read_scores(evaluation: Evaluation, output: Path, dataset: str = DATASET) -> Scores:
    """The numbers that an evaluation left in ``output``."""
    results = _results(evaluation, output, dataset)
    return {
        column: {
            group: float(results[task][metric + suffix])
            for group, suffix in GROUPS.items()
            if metric + suffix in results[task]
        }
        for column, (task, metric) in evaluation.metrics.items()
    }


def read_class_scores(evaluation: Evaluation, output: Path) -> dict[str, dict[str, float]]:
    """Column -> first name of a class -> percentage, for the columns that have such numbers."""
    results = _results(evaluation, output)
    scores: dict[str, dict[str, float]] = {}
    for column, (task, metric) in evaluation.metrics.items():
        start = f"{metric.removeprefix('m')}-"
        found = {
            key.removeprefix(start).partition(",")[0]: float(value)
            for key, value in results[task].items()
            if key.startswith(start)
        }
        if found:
            scores[column] = found
    return scores


def _results(
    evaluation: Evaluation, output: Path, dataset: str = DATASET
) -> dict[str, dict[str, float]]:
    folder = output / evaluation.name.replace(" ", "_")
    content = json.loads((folder / "inference" / dataset / "results.json").read_text())
    results: dict[str, dict[str, float]] = content["results"]
    return results
