"""The evaluation loop and the interface of evaluators."""

import datetime
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from detectron2.utils import comm

__all__ = [
    "DatasetEvaluator",
    "DatasetEvaluators",
    "inference_context",
    "inference_on_dataset",
]

_SECONDS_BETWEEN_REPORTS = 5.0


class DatasetEvaluator:
    """Collects a model's outputs on a dataset, batch by batch, and computes metrics."""

    def reset(self) -> None:
        """Discard what was collected."""

    def process(self, inputs: Any, outputs: Any) -> None:
        """Collect one batch: the model's inputs and outputs, of equal length."""

    def evaluate(self) -> dict[str, Any] | None:
        """The results, {task: {metric: value}}, on the main process; None or {} on others."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one; the names of their tasks must differ."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        self._evaluators = list(evaluators)

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Any, outputs: Any) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for evaluator in self._evaluators:
            # All ranks must evaluate, since evaluators communicate; only the main one has results.
            result = evaluator.evaluate()
            if not comm.is_main_process() or result is None:
                continue
            for task, metrics in result.items():
                assert task not in results, (
                    f"Different evaluators produce results with the same key {task}"
                )
                results[task] = metrics
        return results


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """A context in which the model is in evaluation mode; its mode is restored afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class _Stopwatch:
    """Times the parts of the evaluation loop, without the first, slower batches."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._warmup = min(5, max(total - 1, 0))
        self._count = 0
        self._seconds = {"Dataloading": 0.0, "Inference": 0.0, "Eval": 0.0}
        self._start = self._last = self._last_report = time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the time since the last lap to ``part``."""
        now = time.perf_counter()
        self._seconds[part] += now - self._last
        self._last = now

    def batch_done(self) -> None:
        self._count += 1
        if self._count == self._warmup:
            self._seconds = dict.fromkeys(self._seconds, 0.0)
            self._start = self._last = time.perf_counter()

    @property
    def _timed(self) -> int:
        return max(self._count - self._warmup, 1)

    def progress(self) -> str | None:
        """A progress line every few seconds; None in between and during the warmup."""
        now = time.perf_counter()
        first = self._count == self._warmup + 1
        if self._count <= self._warmup or not (
            first or now - self._last_report > _SECONDS_BETWEEN_REPORTS
        ):
            return None
        self._last_report = now
        per_batch = (now - self._start) / self._timed
        remaining = datetime.timedelta(seconds=int(per_batch * (self._total - self._count)))
        parts = ". ".join(
            f"{part}: {seconds / self._timed:.4f} s/iter" for part, seconds in self._seconds.items()
        )
        return (
            f"Inference done {self._count}/{self._total}. {parts}. "
            f"Total: {per_batch:.4f} s/iter. ETA={remaining}"
        )

    def summary(self, processes: int) -> list[str]:
        total, compute = time.perf_counter() - self._start, self._seconds["Inference"]
        where = f"s / iter per device, on {processes} devices"
        return [
            f"Total inference time: {datetime.timedelta(seconds=total)} "
            f"({total / self._timed:.6f} {where})",
            f"Total inference pure compute time: {datetime.timedelta(seconds=int(compute))} "
            f"({compute / self._timed:.6f} {where})",
        ]


def inference_on_dataset(
    model: Callable[[Any], Any],
    data_loader: Iterable[Any],
    evaluator: DatasetEvaluator | list[DatasetEvaluator] | None,
    callbacks: dict[str, Callable[[], None]] | None = None,
) -> dict[str, Any]:
    """Run the model on a dataset, in evaluation mode and without gradients, and evaluate it.

    Args:
        model: from a batch of inputs to a list of outputs; its training mode is restored.
        data_loader: batches; has a length.
        evaluator: one or several; None: only run the model.
        callbacks: called at ``"start"`` and ``"end"``, and ``"before_inference"`` and
            ``"after_inference"`` of each batch.

    Returns:
        The evaluator's results; ``{}`` on processes without results.
    """
    logger = logging.getLogger(__name__)
    total = len(data_loader)  # type: ignore[arg-type]
    logger.info("Start inference on %d batches", total)
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()

    def call(moment: str) -> None:
        (callbacks or {}).get(moment, lambda: None)()

    with torch.no_grad():
        if isinstance(model, nn.Module):
            with inference_context(model):
                _run_batches(model, data_loader, evaluator, total, call, logger)
        else:
            _run_batches(model, data_loader, evaluator, total, call, logger)
        results = evaluator.evaluate()
    return {} if results is None else results


def _run_batches(
    model: Callable[[Any], Any],
    data_loader: Iterable[Any],
    evaluator: DatasetEvaluator,
    total: int,
    call: Callable[[str], None],
    logger: logging.Logger,
) -> None:
    watch = _Stopwatch(total)
    call("start")
    for inputs in data_loader:
        watch.lap("Dataloading")
        call("before_inference")
        outputs = model(inputs)
        call("after_inference")
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # else the next wait would be charged
        watch.lap("Inference")
        evaluator.process(inputs, outputs)
        watch.lap("Eval")
        watch.batch_done()
        line = watch.progress()
        if line is not None:
            logger.info(line)
    call("end")
    for line in watch.summary(comm.get_world_size()):
        logger.info(line)
