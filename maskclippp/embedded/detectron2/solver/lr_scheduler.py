"""Learning-rate schedules as functions of the progress of a run."""

from typing import Any

import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["LRMultiplier", "WarmupParamScheduler"]


class WarmupParamScheduler(ParamScheduler):
    """A schedule that begins with a warmup.

    Args:
        scheduler: the schedule, a function of the progress ``where`` in [0, 1].
        warmup_factor: the warmup starts at this fraction of the schedule's first value.
        warmup_length: fraction of the run, in [0, 1].
        warmup_method: ``"linear"`` up to the schedule's value after the warmup, or ``"constant"``.
        rescale_interval: compress the whole schedule into the time after the warmup; otherwise the
            warmup replaces its beginning.

    Raises:
        ValueError: unknown method, or a length outside [0, 1].
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        if not 0 <= warmup_length <= 1:
            raise ValueError(f"warmup_length must be in [0, 1], got {warmup_length}")
        self._scheduler = scheduler
        self._length = warmup_length
        self._rescale = rescale_interval
        self._start = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            self._end = scheduler(0.0 if rescale_interval else warmup_length)
        elif warmup_method == "constant":
            self._end = self._start
        else:
            raise ValueError(f"Unknown warmup method: {warmup_method}")

    def __call__(self, where: float) -> float:
        # The tolerance: rounding of i / max_iter must not prolong the warmup by an iteration.
        if where + self.WHERE_EPSILON <= self._length:
            done = where / self._length
            return self._end * done + self._start * (1 - done)
        if self._rescale:
            where = (where - self._length) / (1 - self._length) if self._length < 1 else 1.0
        return self._scheduler(where)


class LRMultiplier(LRScheduler):
    """Multiplies the initial learning rate of each group by a schedule.

    Args:
        optimizer: the current learning rates of its groups are the initial ones.
        multiplier: from the progress in [0, 1] to a factor.
        max_iter: number of steps of the run.
        last_iter: the last completed step; -1: a new run.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        last_iter: int = -1,
    ) -> None:
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier must be a ParamScheduler, got {type(multiplier)}")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """What the configuration does not determine: base_lrs and last_epoch (completed steps)."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float | torch.Tensor]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]
