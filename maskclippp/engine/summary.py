"""What a run does, in a few lines, before it starts, and how long it is going to take."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from tabulate import tabulate
from torch import nn

from maskclippp.detectron2_engine import engine_description
from maskclippp.engine.checkpoint import unwrapped

logger = logging.getLogger(__name__)

# Iterations by which the time is estimated, and slower ones before them.
_TIMED, _WARMUP = 7, 3


def log_summary(
    cfg: CfgNode,
    model: nn.Module,
    *,
    training_from: int | None = None,
    weights: Mapping[str, Any] | None = None,
) -> None:
    """Log what is trained or evaluated, on which data, with which words, and where.

    Args:
        training_from: the first iteration; None: this is an evaluation, of ``weights``.
    """
    rows = [*_parameters(unwrapped(model), training=training_from is not None)]
    if training_from is None:
        rows.append(("weights", (weights or {}).get("checkpoint") or "the initial ones"))
    else:
        solver = cfg.SOLVER
        images = f"{solver.IMS_PER_BATCH} images"
        if solver.ACCUMULATION_STEPS > 1:
            images = f"{solver.ACCUMULATION_STEPS} x {images}"
        rows.append(("training", f"iterations {training_from} to {solver.MAX_ITER}, {images} each"))
        if solver.MAX_ITER - training_from > _WARMUP + _TIMED:
            rows.append(("expected time", f"is told after {_WARMUP + _TIMED} iterations"))
        rows.append(("train data", ", ".join(cfg.DATASETS.TRAIN)))
    rows += [
        ("test data", ", ".join(cfg.DATASETS.TEST) or "none"),
        ("words", _words(model, cfg)),
        ("device", _device(cfg)),
        ("engine", engine_description().removeprefix("detectron2 engine: ")),
        ("files", cfg.OUTPUT_DIR),
    ]
    logger.info("Summary:\n%s", tabulate(rows, tablefmt="plain"))


class ExpectedTime:
    """Tells once, after a few steps, when the training is expected to end."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    @contextmanager
    def step(self, left: int) -> Iterator[None]:
        """A step, after which ``left`` more follow."""
        start = time.perf_counter()
        yield
        if len(self._seconds) == _WARMUP + _TIMED:
            return
        self._seconds.append(time.perf_counter() - start)
        if len(self._seconds) < _WARMUP + _TIMED or left <= 0:
            return
        each = sum(self._seconds[_WARMUP:]) / _TIMED
        expected = timedelta(seconds=round(each * left))
        logger.info(
            "Expected time: %s for the remaining %d iterations, %.2f s each, until %s; evaluations "
            "are not included",
            *(expected, left, each, f"{datetime.now() + expected:%Y-%m-%d %H:%M}"),
        )


def _parameters(model: nn.Module, *, training: bool) -> list[tuple[str, str]]:
    rows = []
    for name, part in [*model.named_children(), ("all", model)]:
        count = sum(p.numel() for p in part.parameters())
        trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
        if count:
            tuned = f", {trained:,} of them trained" if training else ""
            rows.append((name, f"{count:,} parameters{tuned}"))
    return rows


def _words(model: nn.Module, cfg: CfgNode) -> str:
    vocabulary = getattr(unwrapped(model), "train_vocabulary", None)
    trained = "" if vocabulary is None else f", training on {len(vocabulary.synonyms)} names"
    return f"DATASETS.VOCABULARY {cfg.DATASETS.VOCABULARY}{trained}"


def _device(cfg: CfgNode) -> str:
    processes = comm.get_world_size()
    if cfg.MODEL.DEVICE.startswith("cuda"):
        return f"{processes} x {torch.cuda.get_device_name()}"
    reason = "" if torch.cuda.is_available() else ", because there is no CUDA device"
    threads = f"{processes} processes of {torch.get_num_threads()} threads"
    return f"{cfg.MODEL.DEVICE}{reason}, {threads}"
