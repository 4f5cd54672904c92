"""Learning-rate schedules: the golden curves of the engine's own builder."""

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler

from maskclippp.config.keys import get_cfg
from tests.golden_cases import GoldenCase, cases

NAME = "SOLVER.LR_SCHEDULER_NAME"
# The polynomial schedule is ours: detectron2 has it only in a project of its own.
CURVES = [
    (case, curve)
    for case in cases("engine_lr_schedules")
    for curve in case.info["curves"]
    if curve["settings"][NAME] != "WarmupPolyLR"
]


def config(settings: dict[str, Any]) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_list([item for pair in settings.items() for item in pair])
    return cfg


def two_groups(base_lr: float) -> torch.optim.Optimizer:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [
        {"params": [parameter], "lr": base_lr * factor}
        for parameter, factor in zip(parameters, (1.0, 0.01), strict=True)
    ]
    return torch.optim.SGD(groups, lr=base_lr)


@pytest.mark.parametrize(
    ("case", "curve"), CURVES, ids=[f"{i}-{c['settings'][NAME]}" for i, (_, c) in enumerate(CURVES)]
)
def test_schedule_is_the_golden_curve(case: GoldenCase, curve: dict[str, Any]) -> None:
    cfg = config(curve["settings"])
    optimizer = two_groups(cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates, ratios = [], []
    for iteration in range(len(curve["lr"])):
        large, small = (group["lr"] for group in optimizer.param_groups)
        rates.append(large)
        ratios.append(small / large)
        optimizer.step()
        last = iteration == len(curve["lr"]) - 1
        if last and curve["lr_after_the_last_step"] == "error: IndexError":
            with pytest.raises(IndexError):
                scheduler.step()
        else:
            scheduler.step()
    tolerance = case.info["tolerance_rel"]
    assert rates == pytest.approx(curve["lr"], rel=tolerance, abs=0)
    assert [min(ratios), max(ratios)] == pytest.approx(
        curve["ratio_of_the_1_percent_group_min_max"], rel=tolerance
    )
    if not isinstance(curve["lr_after_the_last_step"], str):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(
            curve["lr_after_the_last_step"], rel=tolerance, abs=1e-20
        )
    assert sorted(scheduler.state_dict()) == curve["state_dict_keys"]
    assert type(scheduler).__name__ == curve["scheduler_class"]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({NAME: "NoSuchSchedule"}, ValueError),
        ({NAME: "WarmupMultiStepLR", "SOLVER.STEPS": (200,), "SOLVER.MAX_ITER": 200}, ValueError),
        ({NAME: "WarmupCosineLR", "SOLVER.BASE_LR_END": 1.0}, AssertionError),
        ({NAME: "WarmupCosineLR", "SOLVER.WARMUP_METHOD": "quadratic"}, ValueError),
    ],
)
def test_impossible_settings_are_errors(settings: dict[str, Any], error: type[Exception]) -> None:
    cfg = config(settings)
    with pytest.raises(error):
        build_lr_scheduler(cfg, two_groups(cfg.SOLVER.BASE_LR))


def test_a_resumed_schedule_continues_where_it_was() -> None:
    cfg = config({NAME: "WarmupCosineLR", "SOLVER.MAX_ITER": 20, "SOLVER.WARMUP_ITERS": 5})
    optimizer = two_groups(cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
        if len(rates) == 9:
            states = optimizer.state_dict(), scheduler.state_dict()
    resumed_optimizer = two_groups(cfg.SOLVER.BASE_LR)
    resumed = build_lr_scheduler(cfg, resumed_optimizer)
    resumed_optimizer.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    for expected in rates[9:]:
        assert resumed_optimizer.param_groups[0]["lr"] == expected
        resumed_optimizer.step()
        resumed.step()
