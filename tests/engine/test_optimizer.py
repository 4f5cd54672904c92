"""Optimizer groups are the published ones, and clipping limits what a step does."""

import copy
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from maskclippp.config.keys import get_cfg
from maskclippp.engine.optimizer import build_optimizer, parameter_groups
from tests.golden_cases import GoldenCase, cases

GROUP_CASES = [
    pytest.param(case, index, id=f"{case}-{index}")
    for case in cases("engine_optimizer_groups")
    for index in range(len(case.info["cases"]))
]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(2))
        self.fc = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(2))
        self.pos_embed = nn.Parameter(torch.zeros(2))
        self.absolute_pos_embed = nn.Parameter(torch.zeros(2))
        self.q_bias = nn.Parameter(torch.zeros(2))
        self.tok = nn.Embedding(2, 2)
        self.blk = Block()
        self.bn = nn.BatchNorm2d(2)
        self.conv = nn.Conv2d(2, 2, 1)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "pos_embed"}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask_logit_scale = nn.Parameter(torch.zeros(2))
        self.proxy = Tower()
        self.out_proj = nn.Linear(2, 2)


class PSM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._logit_scale = nn.Parameter(torch.zeros(()))
        self.visual_encoder = Encoder()
        self.visual_encoder_f = Encoder()
        self.text_encoder = Tower()
        self.text_encoder_f = nn.Linear(2, 2)
        self.psm = PSM()
        self.psm_alias = nn.Module()
        self.psm_alias.fc = self.psm.fc


def config(settings: dict) -> object:
    cfg = get_cfg()
    cfg.merge_from_list([item for pair in settings.items() for item in pair])
    return cfg


@pytest.mark.parametrize(("case", "index"), GROUP_CASES)
def test_groups_equal_golden(case: GoldenCase, index: int) -> None:
    golden = case.info["cases"][index]
    model = Model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        (names[id(group["params"][0])], group["lr"], group["weight_decay"])
        for group in parameter_groups(config(golden["settings"]), model)
    ]
    assert [group[0] for group in groups] == [group[0] for group in golden["groups_name_lr_wd"]]
    for (_, lr, decay), (_, golden_lr, golden_decay) in zip(
        groups, golden["groups_name_lr_wd"], strict=True
    ):
        assert lr == pytest.approx(golden_lr, rel=case.info["tolerance_rel"])
        assert decay == pytest.approx(golden_decay, rel=case.info["tolerance_rel"])


@pytest.mark.parametrize(("case", "index"), GROUP_CASES)
def test_optimizer_class_and_hyperparameters_equal_golden(case: GoldenCase, index: int) -> None:
    golden = case.info["cases"][index]
    optimizer = build_optimizer(config(golden["settings"]), Model())
    assert type(optimizer).__name__ == golden["class_name"]
    assert golden["optimizer_base_class"] in [base.__name__ for base in type(optimizer).__mro__]
    for name, value in golden["other_hyperparameters"].items():
        found = optimizer.param_groups[0][name]
        assert (list(found) if isinstance(found, tuple) else found) == value


NORMALIZATIONS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.LayerNorm),
    partial(nn.InstanceNorm2d, affine=True),
    partial(nn.GroupNorm, 1),
)


@pytest.mark.parametrize("index", range(len(NORMALIZATIONS)))
def test_every_kind_of_normalization_has_its_own_decay(index: int) -> None:
    model = nn.Sequential(NORMALIZATIONS[index](4), nn.Linear(4, 4))
    cfg = config({"SOLVER.WEIGHT_DECAY": 0.5, "SOLVER.WEIGHT_DECAY_NORM": 0.25})
    decays = [group["weight_decay"] for group in parameter_groups(cfg, model)]
    assert decays == [0.25, 0.25, 0.5, 0.5]


def test_a_parameter_of_two_modules_is_in_one_group() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    groups = list(parameter_groups(get_cfg(), nn.Sequential(first, second)))
    found = [parameter for group in groups for parameter in group["params"]]
    assert list(map(id, found)) == [id(first.weight), id(first.bias), id(second.bias)]


def step_lengths(clip_type: str, clip_value: float) -> list[float]:
    """Length of each parameter's change in one plain SGD step with gradients of norm 3 and 4."""
    settings = {
        "SOLVER.OPTIMIZER": "SGD",
        "SOLVER.MOMENTUM": 0.0,
        "SOLVER.BASE_LR": 1.0,
        "SOLVER.WEIGHT_DECAY": 0.0,
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": clip_type,
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": clip_value,
    }
    model = nn.ParameterList([torch.zeros(1), torch.zeros(1)])
    optimizer = build_optimizer(config(settings), model)
    model[0].grad, model[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
    optimizer.step()
    return [parameter.norm().item() for parameter in model]


def test_full_model_clipping_limits_the_joint_norm() -> None:
    assert step_lengths("full_model", 1.0) == pytest.approx([0.6, 0.8], rel=1e-4)


def test_full_model_clipping_leaves_small_gradients_alone() -> None:
    assert step_lengths("full_model", 6.0) == pytest.approx([3.0, 4.0])


def test_norm_clipping_limits_each_parameter() -> None:
    assert step_lengths("norm", 2.0) == pytest.approx([2.0, 2.0], rel=1e-4)


@pytest.mark.parametrize(("norm", "expected"), [(2.0, [1.2, 1.6]), (float("inf"), [1.5, 2.0])])
def test_norm_clipping_has_a_choice_of_norms(norm: float, expected: list[float]) -> None:
    settings = {
        **{"SOLVER.OPTIMIZER": "SGD", "SOLVER.BASE_LR": 1.0, "SOLVER.WEIGHT_DECAY": 0.0},
        **{"SOLVER.CLIP_GRADIENTS.ENABLED": True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm"},
        **{"SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 2.0, "SOLVER.CLIP_GRADIENTS.NORM_TYPE": norm},
    }
    model = nn.ParameterList([torch.zeros(2)])
    optimizer = build_optimizer(config(settings), model)
    model[0].grad = torch.tensor([-3.0, -4.0])
    optimizer.step()
    assert model[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_value_clipping_limits_each_element() -> None:
    assert step_lengths("value", 3.5) == pytest.approx([3.0, 3.5])


def test_zero_full_model_limit_means_no_clipping() -> None:
    assert step_lengths("full_model", 0.0) == pytest.approx([3.0, 4.0])


def test_non_finite_gradients_are_refused_before_the_step() -> None:
    settings = {
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
    }
    model = nn.ParameterList([torch.ones(1)])
    optimizer = build_optimizer(config(settings), model)
    model[0].grad = torch.tensor([float("inf")])
    with pytest.raises(FloatingPointError, match="norm of the gradients"):
        optimizer.step()
    assert model[0].item() == 1.0


@pytest.mark.parametrize(
    ("key", "value"), [("SOLVER.OPTIMIZER", "LION"), ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "both")]
)
def test_unknown_choice_names_key_and_value(key: str, value: str) -> None:
    settings = {"SOLVER.CLIP_GRADIENTS.ENABLED": True, key: value}
    with pytest.raises(ValueError, match=f"{key}.*{value}"):
        build_optimizer(config(settings), nn.Linear(1, 1))


def test_model_without_trained_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(get_cfg(), nn.Linear(1, 1).requires_grad_(False))


def test_a_checkpoint_fits_other_groups_of_equal_settings() -> None:
    """Groups are merged by their settings; a state dict has one per parameter, in module order."""
    model, same = Model(), Model()
    optimizer = build_optimizer(config({"SOLVER.WEIGHT_DECAY_NORM": 0.25}), model)
    for number, parameter in enumerate(trained := list(model.parameters())):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    optimizer.step()
    state = optimizer.state_dict()
    count = len([p for p in trained if p.requires_grad])
    assert [group["params"] for group in state["param_groups"]] == [[n] for n in range(count)]
    other = build_optimizer(config({"SOLVER.WEIGHT_DECAY_NORM": 0.0}), same)
    assert len(other.param_groups) != len(optimizer.param_groups) < count
    other.load_state_dict(state)
    for mine, theirs in zip(model.parameters(), same.parameters(), strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(
                optimizer.state[mine]["exp_avg"], other.state[theirs]["exp_avg"], rtol=0, atol=0
            )


@pytest.mark.parametrize("name", ["ADAMW", "SGD"])
def test_moments_follow_weights_that_are_laid_out_otherwise(name: str) -> None:
    """As after ``--resume`` with another CHANNELS_LAST; fused steps read memory in its order."""
    torch.manual_seed(0)
    settings = {"SOLVER.OPTIMIZER": name, "SOLVER.BASE_LR": 0.1}
    gradient = torch.randn(4, 3, 5, 5)
    first, second = nn.Conv2d(3, 4, 5), nn.Conv2d(3, 4, 5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = [build_optimizer(config(settings), model) for model in (first, second)]

    def step(model: nn.Conv2d, optimizer: torch.optim.Optimizer) -> None:
        model.weight.grad = torch.empty_like(model.weight).copy_(gradient)
        optimizer.step()

    step(first, optimizers[0])
    second.load_state_dict(first.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["fused"] = True  # as the trainer does
    step(first, optimizers[0])
    step(second, optimizers[1])
    torch.testing.assert_close(second.weight, first.weight)


@pytest.mark.parametrize("name", ["ADAMW", "SGD"])
def test_steps_are_those_of_the_plain_formula_and_continue_its_checkpoints(name: str) -> None:
    """A fused step rounds otherwise; states from before it was used go on exactly as they began."""
    torch.manual_seed(0)
    settings = {"SOLVER.OPTIMIZER": name, "SOLVER.BASE_LR": 0.1, "SOLVER.WEIGHT_DECAY": 0.01}
    fused, plain, resumed = (nn.Linear(30, 20) for _ in range(3))
    plain.load_state_dict(fused.state_dict())
    optimizers = {model: build_optimizer(config(settings), model) for model in (fused, plain)}
    for group in optimizers[plain].param_groups:
        group["fused"] = None  # as before

    def step(model: nn.Module) -> None:
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.linspace(-1, number + 1, parameter.numel()).view_as(parameter)
        optimizers[model].step()

    for _ in range(3):
        step(fused)
        step(plain)
    torch.testing.assert_close(fused.state_dict(), plain.state_dict())
    resumed.load_state_dict(plain.state_dict())
    optimizers[resumed] = build_optimizer(config(settings), resumed)
    optimizers[resumed].load_state_dict(deepcopy(optimizers[plain].state_dict()))
    step(plain)
    step(resumed)
    torch.testing.assert_close(resumed.state_dict(), plain.state_dict(), rtol=0, atol=0)
