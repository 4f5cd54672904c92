"""Learning rates over a run are the published ones."""

import warnings

import pytest
import torch
from torch import nn

from maskclippp.config.keys import get_cfg
from maskclippp.engine.lr_schedule import build_lr_scheduler
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
