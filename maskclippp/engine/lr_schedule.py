"""Learning-rate schedules: detectron2's, and the polynomial one of DeepLab."""

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from fvcore.common.param_scheduler import ParamScheduler
from torch.optim.lr_scheduler import LRScheduler

from maskclippp.errors import InputError, check_choice

SCHEDULES = ("WarmupCosineLR", "WarmupMultiStepLR", "WarmupStepWithFixedGammaLR", "WarmupPolyLR")


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule SOLVER.LR_SCHEDULER_NAME, which is stepped after every iteration."""
    solver, name = cfg.SOLVER, cfg.SOLVER.LR_SCHEDULER_NAME
    check_choice("SOLVER.LR_SCHEDULER_NAME:", name, SCHEDULES)
    if name != "WarmupPolyLR":
        try:
            return build_detectron2_lr_scheduler(cfg, optimizer)
        except (AssertionError, ValueError) as error:  # e.g. WARMUP_METHOD, BASE_LR_END
            raise InputError(f"SOLVER.LR_SCHEDULER_NAME {name}: {error}") from error
    multiplier = WarmupPoly(
        power=solver.POLY_LR_POWER,
        constant_ending=solver.POLY_LR_CONSTANT_ENDING,
        warmup_length=min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_method=solver.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, multiplier, max_iter=solver.MAX_ITER)


class WarmupPoly(ParamScheduler):
    """(1 - progress) ** power (DeepLab), with a warmup.

    Args:
        constant_ending: lower bound after the warmup.
        warmup_length: fraction of the training, in [0, 1].
        warmup_factor: initial factor of a linear warmup, or the factor of a constant one.
        warmup_method: "linear" or "constant".
    """

    def __init__(
        self,
        *,
        power: float,
        constant_ending: float = 0.0,
        warmup_length: float = 0.0,
        warmup_factor: float = 1.0,
        warmup_method: str = "linear",
    ) -> None:
        if warmup_method not in ("linear", "constant"):
            raise InputError(
                f"SOLVER.WARMUP_METHOD: {warmup_method!r} is neither 'linear' nor 'constant'"
            )
        self._power = power
        self._constant_ending = constant_ending
        self._warmup_length = warmup_length
        self._warmup_factor = warmup_factor
        self._warmup_method = warmup_method

    def __call__(self, where: float) -> float:
        """The multiplier at progress ``where`` in [0, 1]."""
        curve = max(1.0 - where, 0.0) ** self._power
        if where >= self._warmup_length:
            return max(curve, self._constant_ending)
        if self._warmup_method == "constant":
            return self._warmup_factor * curve
        share = where / self._warmup_length
        return (self._warmup_factor * (1.0 - share) + share) * curve
