"""Builds optimizer and learning-rate schedule from a config."""

import logging
from collections.abc import Callable
from typing import Any, overload

import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn

from detectron2.config import CfgNode
from detectron2.solver.lr_scheduler import LRMultiplier, WarmupParamScheduler

__all__ = [
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
]

_NORM_TYPES = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


@overload
def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: type[torch.optim.Optimizer]
) -> type[torch.optim.Optimizer]: ...
@overload
def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.Optimizer: ...
def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: torch.optim.Optimizer | type[torch.optim.Optimizer]
) -> torch.optim.Optimizer | type[torch.optim.Optimizer]:
    """Make an optimizer (or optimizer class) clip the gradient of each parameter before a step.

    SOLVER.CLIP_GRADIENTS.CLIP_TYPE ``"value"`` limits each entry to CLIP_VALUE, ``"norm"`` the norm
    (of NORM_TYPE) of each parameter's gradient. Nothing changes unless ENABLED.

    Raises:
        ValueError: unknown CLIP_TYPE.
    """
    settings = cfg.SOLVER.CLIP_GRADIENTS
    if not settings.ENABLED:
        return optimizer
    if isinstance(optimizer, type):
        return _clipping_class(optimizer, _clipper(settings))
    optimizer.__class__ = _clipping_class(type(optimizer), _clipper(settings))
    return optimizer


def _clipping_class(
    base: type[torch.optim.Optimizer], clip: Callable[[torch.Tensor], Any]
) -> type[torch.optim.Optimizer]:
    def step(self: Any, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                clip(parameter)
        return base.step(self, closure)

    return type(f"{base.__name__}WithGradientClip", (base,), {"step": step})


def _clipper(settings: CfgNode) -> Callable[[torch.Tensor], Any]:
    if settings.CLIP_TYPE == "value":
        return lambda parameter: nn.utils.clip_grad_value_(parameter, settings.CLIP_VALUE)
    if settings.CLIP_TYPE == "norm":
        return lambda parameter: nn.utils.clip_grad_norm_(
            parameter, settings.CLIP_VALUE, norm_type=settings.NORM_TYPE
        )
    raise ValueError(
        f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {settings.CLIP_TYPE!r}; it must be 'value' or 'norm'"
    )


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float,
    weight_decay: float,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float = 1.0,
    weight_decay_bias: float | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups, one per pair of learning rate and weight decay.

    Shared parameters appear once.

    Args:
        weight_decay_norm: for the parameters of normalization layers; None: ``weight_decay``.
        bias_lr_factor: multiplies the learning rate of biases.
        weight_decay_bias: for biases, including those of normalization layers; None: no exception.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            learning_rate, decay = base_lr, weight_decay
            if isinstance(module, _NORM_TYPES) and weight_decay_norm is not None:
                decay = weight_decay_norm
            if name == "bias":
                learning_rate *= bias_lr_factor
                decay = decay if weight_decay_bias is None else weight_decay_bias
            groups.setdefault((learning_rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate, "weight_decay": decay}
        for (learning_rate, decay), parameters in groups.items()
    ]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Stochastic gradient descent as SOLVER describes it."""
    solver = cfg.SOLVER
    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = torch.optim.SGD(
        parameters,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """The schedule that SOLVER.LR_SCHEDULER_NAME names, with warmup.

    Raises:
        ValueError: unknown name, or a milestone equal to MAX_ITER.
        AssertionError: BASE_LR_END outside [0, BASE_LR].
    """
    solver = cfg.SOLVER
    multiplier = WarmupParamScheduler(
        _main_schedule(solver),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=multiplier, max_iter=solver.MAX_ITER)


def _main_schedule(solver: CfgNode) -> ParamScheduler:
    name = solver.LR_SCHEDULER_NAME
    if name == "WarmupMultiStepLR":
        milestones = [step for step in solver.STEPS if step <= solver.MAX_ITER]
        if len(milestones) != len(solver.STEPS):
            logging.getLogger(__name__).warning(
                "SOLVER.STEPS contains values larger than SOLVER.MAX_ITER. "
                "These values will be ignored."
            )
        return MultiStepParamScheduler(
            values=[solver.GAMMA**k for k in range(len(milestones) + 1)],
            milestones=milestones,
            num_updates=solver.MAX_ITER,
        )
    if name == "WarmupCosineLR":
        end_value = solver.BASE_LR_END / solver.BASE_LR
        assert 0.0 <= end_value <= 1.0, (
            f"SOLVER.BASE_LR_END ({solver.BASE_LR_END}) must be between 0 and SOLVER.BASE_LR "
            f"({solver.BASE_LR})"
        )
        return CosineParamScheduler(1.0, end_value)
    if name == "WarmupStepWithFixedGammaLR":
        return StepWithFixedGammaParamScheduler(
            base_value=1.0,
            gamma=solver.GAMMA,
            num_decays=solver.NUM_DECAYS,
            num_updates=solver.MAX_ITER,
        )
    raise ValueError(
        f"Unknown LR scheduler: {name}; SOLVER.LR_SCHEDULER_NAME must be one of WarmupCosineLR, "
        "WarmupMultiStepLR, WarmupStepWithFixedGammaLR"
    )
