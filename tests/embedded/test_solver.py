"""The default optimizer and gradient clipping."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver import build_optimizer, get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn


def decays(groups: list[dict], parameter: nn.Parameter) -> tuple[float, float]:
    for group in groups:
        if any(item is parameter for item in group["params"]):
            return group["lr"], group["weight_decay"]
    raise AssertionError("the parameter is in no group")


def test_norms_and_biases_have_settings_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        bias_lr_factor=2.0,
        weight_decay_bias=0.3,
    )
    assert decays(groups, model[0].weight) == (1.0, 0.1)
    assert decays(groups, model[0].bias) == (2.0, 0.3)
    assert decays(groups, model[1].weight) == (1.0, 0.0)
    assert decays(groups, model[1].bias) == (2.0, 0.3)


def test_frozen_and_shared_parameters() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    model["b"].bias.requires_grad_(False)
    groups = get_default_optimizer_params(model, base_lr=1.0, weight_decay=0.0)
    parameters = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(parameters) == sorted([id(model["a"].weight), id(model["a"].bias)])


def test_the_default_optimizer_follows_the_solver_settings() -> None:
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = 0.5
    optimizer = build_optimizer(cfg, nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["momentum"] == cfg.SOLVER.MOMENTUM


@pytest.mark.parametrize(("clip_type", "step"), [("value", [2.0, 2.0]), ("norm", [1.2, 1.6])])
def test_gradients_are_clipped_before_the_step(clip_type: str, step: list[float]) -> None:
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 2.0
    optimizer_class = maybe_add_gradient_clipping(cfg, torch.optim.SGD)
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    optimizer_class([parameter], lr=1.0).step()
    assert issubclass(optimizer_class, torch.optim.SGD)
    assert (-parameter.detach()).tolist() == pytest.approx(step, rel=1e-5)


def test_an_existing_optimizer_can_be_made_to_clip() -> None:
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD([parameter], lr=1.0))
    parameter.grad = torch.tensor([30.0])
    optimizer.step()
    assert parameter.item() == pytest.approx(-1.0)


def test_clipping_is_off_by_default() -> None:
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.SGD) is torch.optim.SGD


def test_another_type_of_clipping_is_an_error() -> None:
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    with pytest.raises(ValueError, match="full_model"):
        maybe_add_gradient_clipping(cfg, torch.optim.SGD)
