"""The hooks of standard training."""

import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from torch.optim.lr_scheduler import LRScheduler as _TorchScheduler

from detectron2.engine.train_loop import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

__all__ = [
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
]


class IterationTimer(HookBase):
    """Records the scalar ``time`` (seconds per step) and finally logs the speed.

    It must be the first hook, so that the time of other hooks does not count.

    Args:
        warmup_iter: number of the first, slower steps that are not timed.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = warmup_iter
        self._train_start = time.perf_counter()
        self._step_start = self._train_start
        self._seconds_in_steps = 0.0

    def before_train(self) -> None:
        self._train_start = time.perf_counter()
        self._seconds_in_steps = 0.0

    def before_step(self) -> None:
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        seconds = time.perf_counter() - self._step_start
        steps_done = self.trainer.iter - self.trainer.start_iter + 1
        if steps_done >= self._warmup_iter:
            self.trainer.storage.put_scalars(time=seconds)
            self._seconds_in_steps += seconds
        else:
            self._train_start = time.perf_counter()

    def after_train(self) -> None:
        total = time.perf_counter() - self._train_start
        in_steps = self._seconds_in_steps
        steps = self.trainer.iter + 1 - self.trainer.start_iter - self._warmup_iter
        logger = logging.getLogger(__name__)
        if steps > 0 and in_steps > 0:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                steps,
                datetime.timedelta(seconds=int(in_steps)),
                in_steps / steps,
            )
        logger.info(
            "Total training time: %s (%s on hooks)",
            datetime.timedelta(seconds=int(total)),
            datetime.timedelta(seconds=int(total - in_steps)),
        )


class PeriodicWriter(HookBase):
    """Calls writers every ``period`` iterations, at the last one, and after training."""

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        self._writers = list(writers)
        self._period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            # What other hooks recorded after the last step, such as the final evaluation.
            writer.write()
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """fvcore's periodic checkpointer as a hook, with the same arguments."""

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class LRScheduler(HookBase):
    """Records the scalar ``lr`` and steps the schedule after every iteration.

    Args:
        optimizer: None: the trainer's.
        scheduler: None: the trainer's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: _TorchScheduler | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_train(self) -> None:
        self._optimizer = self._optimizer or self.trainer.optimizer  # type: ignore[attr-defined]
        self._best_group = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """The group whose learning rate is reported.

        It is the group with the most parameters, or, if each group has a single parameter, the
        first one with the most common learning rate.
        """
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in optimizer.param_groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    @property
    def scheduler(self) -> _TorchScheduler:
        return self._scheduler or self.trainer.scheduler  # type: ignore[attr-defined]

    def after_step(self) -> None:
        assert self._optimizer is not None
        rate = self._optimizer.param_groups[self._best_group]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        if isinstance(self.scheduler, _TorchScheduler):
            return self.scheduler.state_dict()
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if isinstance(self.scheduler, _TorchScheduler):
            logging.getLogger(__name__).info("Loading scheduler from state_dict ...")
            self.scheduler.load_state_dict(state_dict)


class EvalHook(HookBase):
    """Evaluates every ``eval_period`` iterations and after a finished training.

    Args:
        eval_period: 0: only after training.
        eval_function: returns nested results with numbers at the leaves, or nothing.
        eval_after_train: whether to evaluate after the last iteration.
    """

    def __init__(
        self, eval_period: int, eval_function: Callable[[], Any], eval_after_train: bool = True
    ) -> None:
        self._period = eval_period
        self._function = eval_function
        self._after_train = eval_after_train

    def _evaluate(self) -> None:
        """Evaluate, and record the results as ``task/metric``.

        Raises:
            ValueError: a result is not a number.
        """
        results = self._function()
        if results:
            assert isinstance(results, dict), (
                f"Eval function must return a dict. Got {results} instead."
            )
            scalars = {}
            for name, value in flatten_results_dict(results).items():
                try:
                    scalars[name] = float(value)
                except (TypeError, ValueError) as error:
                    raise ValueError(
                        "[EvalHook] eval_function should return a nested dict of float. "
                        f"Got '{name}: {value}' instead."
                    ) from error
            for name, value in scalars.items():
                self.trainer.storage.put_scalar(name, value, smoothing_hint=False)
        # Ranks may finish at different times; the next step must not time out.
        comm.synchronize()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._evaluate()

    def after_train(self) -> None:
        # Not after an exception, which leaves the iteration below the maximum.
        if self._after_train and self.trainer.iter >= self.trainer.max_iter:
            self._evaluate()
        # The function usually refers to the trainer, which refers to this hook: break the cycle.
        del self._function
