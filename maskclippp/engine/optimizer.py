"""The optimizer: groups of parameters with equal settings, and gradient clipping inside the step.

Checkpoints hold one group per parameter, in module order: they fit any other settings.

Clipping is part of ``step()`` because a gradient scaler calls that after it has unscaled the
gradients, so that it sees unscaled gradients, and never those of a skipped step.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from maskclippp.errors import InputError, check_choice

Clip = Callable[[list[nn.Parameter]], None]

_NORMALIZATIONS = (
    nn.modules.batchnorm._BatchNorm,  # includes SyncBatchNorm
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that SOLVER.* describes, over all parameters that require gradients.

    Raises:
        InputError: an unknown OPTIMIZER or CLIP_TYPE, or a model without trained parameters.
    """
    groups = list(parameter_groups(cfg, model))
    if not groups:
        raise InputError(
            "nothing to train: every parameter of the model is frozen "
            "(see the FINETUNE_TYPE keys and MODEL.MASKCLIPPP.PSM.NAME)"
        )
    solver = cfg.SOLVER
    optimizer_class: type[torch.optim.Optimizer]
    arguments: dict[str, Any] = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
    if solver.OPTIMIZER == "ADAMW":
        optimizer_class = torch.optim.AdamW
    elif solver.OPTIMIZER == "SGD":
        optimizer_class = torch.optim.SGD
        arguments["momentum"] = solver.MOMENTUM
    else:
        raise InputError(f"SOLVER.OPTIMIZER: {solver.OPTIMIZER!r} is neither 'ADAMW' nor 'SGD'")
    parameters = [parameter for group in groups for parameter in group["params"]]
    if all(parameter.device.type == "cpu" for parameter in parameters):
        # In a third of the time. Gradient scalers, which fused steps treat apart, need a GPU.
        arguments["fused"] = True
    clipping_class = _with_clipping(cfg, optimizer_class, parameters)
    return _with_layout(clipping_class(_merged(groups), **arguments), parameters)


def _merged(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of equal settings as one, which a GPU updates by a few kernels."""
    merged: dict[Hashable, dict[str, Any]] = {}
    for group in groups:
        settings = group["lr"], group["weight_decay"]
        merged.setdefault(settings, {**group, "params": []})["params"] += group["params"]
    return list(merged.values())


def _with_layout(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer, whose state dict has one group for each of ``parameters``, in this order."""
    place = {parameter: index for index, parameter in enumerate(parameters)}
    groups = [[place[parameter] for parameter in g["params"]] for g in optimizer.param_groups]
    order = [index for group in groups for index in group]  # that of the optimizer

    def split(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        state_of = {order[index]: values for index, values in state["state"].items()}
        group_of = {
            index: group
            for indices, group in zip(groups, state["param_groups"], strict=True)
            for index in indices
        }
        return {
            **state,
            "state": dict(sorted(state_of.items())),
            # Whether steps are fused is a matter of the device that a run continues on.
            "param_groups": [
                {**group_of[i], "params": [i], "fused": None} for i in range(len(parameters))
            ],
        }

    def join(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        found = state["param_groups"]
        if [len(group["params"]) for group in found] != [1] * len(parameters):
            return state  # of other parameters: PyTorch says what differs
        return {
            **state,
            "param_groups": [
                {**found[group[0]], "params": [found[index]["params"][0] for index in group]}
                for group in groups
            ],
        }

    def lay_out(optimizer: torch.optim.Optimizer) -> None:
        # Fused steps read memory in its order, which channels-last weights change.
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    optimizer.register_load_state_dict_post_hook(lay_out)
    optimizer.register_state_dict_post_hook(split)
    optimizer.register_load_state_dict_pre_hook(join)
    return optimizer


def parameter_groups(cfg: CfgNode, model: nn.Module) -> Iterator[dict[str, Any]]:
    """One optimizer group (params, lr, weight_decay) per trained parameter, in module order.

    A shared parameter appears once, under its first name.
    """
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield {
                    "params": [parameter],
                    "lr": cfg.SOLVER.BASE_LR * _learning_rate_factor(cfg, module_name),
                    "weight_decay": _weight_decay(cfg, module_name, module, name),
                }


def _learning_rate_factor(cfg: CfgNode, module_name: str) -> float:
    if "text_encoder" in module_name:
        return cfg.SOLVER.TEXT_ENCODER_MULTIPLIER
    if "visual_encoder.proxy" in module_name:
        return cfg.SOLVER.VISUAL_ENCODER_MULTIPLIER
    return 1.0


def _weight_decay(cfg: CfgNode, module_name: str, module: nn.Module, name: str) -> float:
    """The weight decay of parameter ``name`` of ``module``; the strongest rule comes first."""
    solver = cfg.SOLVER
    if solver.WEIGHT_DECAY_BIAS is not None and name.endswith("bias"):
        pretrained = "visual_encoder.proxy" in module_name or "text_encoder" in module_name
        return 0.0 if pretrained else solver.WEIGHT_DECAY_BIAS
    if isinstance(module, nn.Embedding):
        return solver.WEIGHT_DECAY_EMBED
    if isinstance(module, _NORMALIZATIONS):
        return solver.WEIGHT_DECAY_NORM
    exempt: Callable[[], Collection[str]] | None = getattr(module, "no_weight_decay", None)
    if exempt is not None and name in exempt():
        return 0.0
    if "relative_position_bias_table" in name or "absolute_pos_embed" in name:
        return 0.0
    return solver.WEIGHT_DECAY


def _with_clipping(
    cfg: CfgNode, base: type[torch.optim.Optimizer], parameters: list[nn.Parameter]
) -> type[torch.optim.Optimizer]:
    """``base``, or a subclass of it whose step clips gradients as SOLVER.CLIP_GRADIENTS says."""
    settings = cfg.SOLVER.CLIP_GRADIENTS
    # In the published code, a full-model limit of 0 means "no clipping".
    unlimited = settings.CLIP_TYPE == "full_model" and settings.CLIP_VALUE <= 0
    if not settings.ENABLED or unlimited:
        return base
    clips: dict[str, Clip] = {
        "full_model": lambda parameters: _clip_full_model(parameters, settings.CLIP_VALUE),
        "value": lambda parameters: nn.utils.clip_grad_value_(parameters, settings.CLIP_VALUE),
        "norm": lambda parameters: _clip_each(parameters, settings.CLIP_VALUE, settings.NORM_TYPE),
    }
    check_choice("SOLVER.CLIP_GRADIENTS.CLIP_TYPE:", settings.CLIP_TYPE, sorted(clips))
    full_model = settings.CLIP_TYPE == "full_model"
    name = (
        "FullModelGradientClippingOptimizer" if full_model else f"{base.__name__}WithGradientClip"
    )
    clip = clips[settings.CLIP_TYPE]

    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> Any:
        clip(parameters)
        return base.step(self, closure)

    return type(name, (base,), {"step": step})


def _clip_full_model(parameters: list[nn.Parameter], limit: float) -> None:
    """Scale all gradients so that their total norm is at most ``limit``.

    Raises:
        FloatingPointError: the norm is not finite; the step would destroy the weights.
    """
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    if not torch.isfinite(norm):
        raise FloatingPointError(f"the norm of the gradients is {norm.item()}")


def _clip_each(parameters: list[nn.Parameter], limit: float, norm_type: float) -> None:
    for parameter in parameters:
        nn.utils.clip_grad_norm_(parameter, limit, norm_type)
