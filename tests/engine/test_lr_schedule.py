"""Learning rates over a run are the published ones."""

import warnings

import pytest
import torch
from torch import nn

from maskclippp.config.keys import get_cfg
from maskclippp.engine.lr_schedule import WarmupPoly, build_lr_scheduler
from tests.golden_cases import GoldenCase, cases

CURVES = [
    pytest.param(case, index, id=f"{case}-{index}-{curve['settings']['SOLVER.LR_SCHEDULER_NAME']}")
    for case in cases("engine_lr_schedules")
    for index, curve in enumerate(case.info["curves"])
]


@pytest.mark.parametrize(("case", "index"), CURVES)
def test_curve_equals_golden(case: GoldenCase, index: int) -> None:
    curve = case.info["curves"][index]
    cfg = get_cfg()
    cfg.merge_from_list([item for pair in curve["settings"].items() for item in pair])
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.SOLVER.BASE_LR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no optimizer step comes before
        scheduler = build_lr_scheduler(cfg, optimizer)
        rates = [optimizer.param_groups[0]["lr"]]
        for _ in curve["lr"][1:]:
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(curve["lr"], rel=case.info["tolerance_rel"], abs=1e-18)


@pytest.mark.parametrize(
    ("key", "value"),
    [("SOLVER.LR_SCHEDULER_NAME", "Warmup"), ("SOLVER.WARMUP_METHOD", "slow")],
)
def test_unknown_choice_names_key_and_value(key: str, value: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR", key, value])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match=f"{key}.*{value}"):
        build_lr_scheduler(cfg, optimizer)


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_the_warmup_ends_where_it_ends(method: str) -> None:
    """From there on the rate is that of the schedule, and not below its end."""
    rate = WarmupPoly(
        power=2.0, constant_ending=0.3, warmup_length=0.5, warmup_factor=0.1, warmup_method=method
    )
    assert [rate(where) for where in (0.5, 0.6, 1.0)] == [0.3, 0.3, 0.3]
    assert rate(0.0) == pytest.approx(0.1)
    assert rate(0.25) == pytest.approx(0.75**2 * (0.55 if method == "linear" else 0.1))


def test_a_warmup_longer_than_the_training_ends_with_it() -> None:
    cfg = get_cfg()
    options = ("WARMUP_ITERS", 30, "MAX_ITER", 10, "LR_SCHEDULER_NAME", "WarmupPolyLR")
    named = [f"SOLVER.{part}" if number % 2 == 0 else part for number, part in enumerate(options)]
    cfg.merge_from_list([*named, "SOLVER.WARMUP_FACTOR", 0.0, "SOLVER.POLY_LR_POWER", 1.0])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 0.5)
