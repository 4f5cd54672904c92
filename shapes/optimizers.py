"""Optimizers and schedule of the trainings from scratch: CLIP and mask generators."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn


def build_optimizers(
    parameters: Iterable[tuple[str, nn.Parameter]],
    is_hidden: Callable[[str], bool],
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between hidden layers, AdamW for everything else.

    A few directions, such as colors, dominate the gradients. Muon makes all directions of an
    update equally large, so that the others are learned too, in far fewer steps. Biases, norms
    and scales have no weight decay.

    Args:
        parameters: with their names.
        is_hidden: whether a parameter of that name and two dimensions is such a matrix.
        weight_decay: of all parameters with two or more dimensions.
    """
    hidden, decayed, free = [], [], []
    for name, parameter in parameters:
        if parameter.ndim == 2 and is_hidden(name):
            hidden.append(parameter)
        else:
            (decayed if parameter.ndim >= 2 else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0},
    ]
    return [
        torch.optim.Muon(hidden, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True),
    ]


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Of all parameters."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
