"""The folder of a run: one writer, one run, one configuration, and results that belong to it."""

import argparse
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

from maskclippp.config.yaml_files import read_yaml
from maskclippp.errors import InputError
from maskclippp.files.atomic import atomic_write, make_folder
from maskclippp.files.lock import folder_lock
from maskclippp.files.signatures import sha256_of_file

CONFIG_NAME = "config.yaml"
RESULTS_NAME = "results.json"
INITIAL = "initial weights"
PREVIOUS_RESULTS_NAME = "previous_results.json"

logger = logging.getLogger(__name__)


@contextmanager
def run_folder(cfg: CfgNode, args: argparse.Namespace) -> Iterator[None]:
    """Create the folder of a run and hold its lock; all processes of the run call this.

    Raises:
        InputError: the folder cannot be created, another run writes it, or a training would mix
            with an earlier run that is there.
    """
    folder, problem = Path(cfg.OUTPUT_DIR), ""
    with ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if comm.is_main_process():
                lock.enter_context(folder_lock(folder))
                if not args.eval_only and not args.resume:
                    _make_room(folder, overwrite=getattr(args, "overwrite", False))
        except InputError as error:
            problem = str(error)
        except OSError as error:
            problem = (
                f"OUTPUT_DIR {folder} cannot be created or written ({error.strerror}): choose "
                "another one with OUTPUT_DIR <path> at the end of the command"
            )
        raise_together(problem)
        yield


def raise_together(problem: str) -> None:
    """Raise an InputError in all processes if one has a problem; a collective call.

    The others would wait forever for one that left.
    """
    problems = [text for text in comm.all_gather(problem) if text]
    if problems:
        raise InputError(problems[0])


def _make_room(folder: Path, *, overwrite: bool) -> None:
    """Refuse a new training in the folder of another run, or delete that run (``overwrite``)."""
    if not holds_run(folder):
        return
    if not overwrite:
        raise InputError(
            f"{folder} already holds an earlier run: continue it with --resume, choose another "
            "--tag or OUTPUT_DIR, or delete it with --overwrite"
        )
    logger.warning("Deleting the run in %s", folder)
    files = ("model_*.pth", "last_checkpoint", "metrics.json", "events.out.tfevents.*", "log.txt*")
    for pattern in (*files, "run_id", CONFIG_NAME):
        for file in folder.glob(pattern):
            file.unlink()
    for results in folder.glob("inference*"):
        shutil.rmtree(results)


def holds_run(folder: Path) -> bool:
    """Whether a training, or an evaluation, has left something here that is worth keeping."""
    return (
        holds_checkpoint(folder)
        or holds_metrics(folder)
        or any(folder.glob(f"inference*/*/{RESULTS_NAME}"))
    )


def holds_checkpoint(folder: Path) -> bool:
    """Whether a training has left a checkpoint here."""
    return any(folder.glob("model_*.pth"))


def holds_metrics(folder: Path) -> bool:
    """Whether a training has logged its losses here."""
    metrics = folder / "metrics.json"
    return metrics.is_file() and metrics.stat().st_size > 0


def write_config(cfg: CfgNode, *, eval_only: bool) -> None:
    """Write config.yaml; an evaluation in the folder of a training: inference/config.yaml.

    Results of another configuration are set aside first, so that they never stand beside it.
    """
    folder, text = Path(cfg.OUTPUT_DIR), cfg.dump()
    file = folder / CONFIG_NAME
    if eval_only and holds_checkpoint(folder):
        file = folder / "inference" / CONFIG_NAME
        file.parent.mkdir(exist_ok=True)
    elif file.is_file() and file.read_text(errors="replace") != text:
        for results in folder.glob(f"inference*/*/{RESULTS_NAME}"):
            set_aside(results)
    with atomic_write(file) as stream:
        stream.write(text.encode())


def set_aside(results: Path) -> None:
    """Rename results that the run is about to replace, so that they never pass for its own."""
    logger.warning("%s holds earlier results: renamed to %s", results, PREVIOUS_RESULTS_NAME)
    results.replace(results.with_name(PREVIOUS_RESULTS_NAME))


def weights_of_file(checkpoint: Path | None) -> dict[str, Any]:
    """What result files say about the evaluated weights; None: the initial ones."""
    if checkpoint is None:
        return {"checkpoint": None, "origin": INITIAL}
    if not checkpoint.is_file():
        return {"checkpoint": str(checkpoint)}
    return {"checkpoint": str(checkpoint.absolute()), "sha256": sha256_of_file(checkpoint)}


def check_writable(folders: Iterable[Path]) -> None:
    """Create folders; an InputError if one cannot be written, before hours of work are lost."""
    for folder in folders:
        make_folder(folder, remedy="correct its permissions, or choose another --tag or OUTPUT_DIR")


def replace_results(files: Iterable[Path], weights: Mapping[str, Any], *, overwrite: bool) -> None:
    """Set aside earlier results of the same weights; an InputError if some are of others.

    Args:
        overwrite: set aside results of any weights.
    """
    earlier = [file for file in files if file.is_file()]
    for results in () if overwrite else earlier:
        found = _weights_of_results(results)
        # Without a file (sha256), the iteration tells those of a training from the initial ones.
        if not found or any(found.get(key) != weights.get(key) for key in ("sha256", "iteration")):
            raise InputError(
                f"{results} holds the results of other weights "
                f"({found.get('checkpoint') or 'unknown ones'}): "
                "choose another --tag or OUTPUT_DIR, or give --overwrite"
            )
    for results in earlier:
        set_aside(results)


def _weights_of_results(results: Path) -> dict[str, Any]:
    """What a result file says about its weights; those of older versions say nothing."""
    try:
        content = json.loads(results.read_bytes())
    except (OSError, ValueError):
        return {}
    weights = content.get("weights") if isinstance(content, dict) else None
    return weights if isinstance(weights, dict) else {}


def report_changed_settings(cfg: CfgNode) -> None:
    """Warn of the settings in which a continued training differs from its config.yaml.

    Raises:
        InputError: SOLVER.OPTIMIZER differs; the state of one does not fit the other.
    """
    file = Path(cfg.OUTPUT_DIR) / CONFIG_NAME
    if not file.is_file():
        return
    old, new = _flat(read_yaml(file)), _flat(yaml.safe_load(cfg.dump()))
    changed = {key: (old[key], new[key]) for key in old.keys() & new.keys() if old[key] != new[key]}
    changed.pop("OUTPUT_DIR", None)
    if "SOLVER.OPTIMIZER" in changed:
        raise InputError(
            "SOLVER.OPTIMIZER: the run in {} was trained with {}, not with {}: continue with the "
            "same optimizer, or start a new run with MODEL.WEIGHTS".format(
                cfg.OUTPUT_DIR, *changed["SOLVER.OPTIMIZER"]
            )
        )
    for key, (before, now) in sorted(changed.items()):
        effect = "the run keeps its own seed" if key == "SEED" else "used from here on"
        logger.warning("%s was %s and is now %s: %s", key, before, now, effect)


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def forget_later_metrics(folder: Path, start_iter: int, max_iter: int) -> None:
    """Cut metrics.json off where a continued training starts, so that no iteration is there twice.

    A killed run has written metrics of iterations behind its last checkpoint, and perhaps half a
    line. The evaluation after the last step is logged under the next iteration: it is kept if the
    training goes on.
    """
    file = folder / "metrics.json"
    if not file.is_file():
        return
    offset = 0
    with file.open("rb") as lines:
        for line in lines:
            try:
                content = json.loads(line)
                iteration = int(content["iteration"])
            except (ValueError, KeyError, TypeError):
                break
            evaluation = "total_loss" not in content and iteration == start_iter < max_iter
            if not line.endswith(b"\n") or (iteration >= start_iter and not evaluation):
                break
            offset += len(line)
    os.truncate(file, offset)
