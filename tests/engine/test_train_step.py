"""What one optimizer step draws, scales and restores."""

import random
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from maskclippp.engine.train_step import TrainStep


class Draws(nn.Module):
    """Notes what the generators of a step give."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.drawn: list[tuple[float, float]] = []

    def forward(self, batch: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        self.drawn.append((torch.rand(()).item(), random.random()))
        return (self.weight * batch[0]["image"]).sum()


def step_on_ones(dtype: torch.dtype | None = None, seed: int = 3) -> TrainStep:
    model = Draws()
    step = TrainStep(
        model, torch.optim.SGD(model.parameters(), lr=0.1), seed=seed, autocast_dtype=dtype
    )
    step.data_loader = [[{"image": torch.ones(4)}]] * 100
    return step


def drawn_in(iterations: list[int], seed: int = 3) -> list[tuple[float, float]]:
    step = step_on_ones(seed=seed)
    with EventStorage():
        for iteration in iterations:
            step.run(iteration)
    drawn: list[tuple[float, float]] = step.model.drawn
    return drawn


def test_random_numbers_of_a_step_depend_on_seed_and_iteration_alone() -> None:
    first, second = drawn_in([5, 6])
    assert first != second
    assert drawn_in([6]) == [second]
    assert drawn_in([5], seed=4) != [first]


def test_gradient_scale_is_restored() -> None:
    """A scale that starts anew would skip steps after each resumption."""
    step, resumed = step_on_ones(torch.float16), step_on_ones(torch.float16)
    with EventStorage():
        step.data_loader = [[{"image": torch.full((4,), 30000.0)}]] * 2
        for iteration in range(2):
            step.run(iteration)
    state = step.state_dict()
    assert state["grad_scaler"] != resumed.state_dict()["grad_scaler"]
    resumed.load_state_dict(state)
    assert resumed.state_dict()["grad_scaler"] == state["grad_scaler"]


def test_a_step_that_overflows_is_skipped_and_the_scale_lowered() -> None:
    step = step_on_ones(torch.float16)
    before = step.state_dict()["grad_scaler"]["scale"]
    step.data_loader = [[{"image": torch.full((4,), 1e35)}]]
    with EventStorage():
        step.run(0)
    assert step.model.weight.eq(1).all()
    assert step.state_dict()["grad_scaler"]["scale"] == pytest.approx(before / 2)


def test_a_model_that_was_left_in_evaluation_mode_is_trained() -> None:
    step = step_on_ones()
    step.model.eval()
    with EventStorage():
        step.run(0)
    assert step.model.training


class Notes(torch.optim.AdamW):
    """Notes the gradients that a step is given, as one that clips them does."""

    def step(self, closure: Any = None) -> Any:
        self.seen = [p.grad.clone() for group in self.param_groups for p in group["params"]]
        return super().step(closure)


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_sees_gradients_without_their_scale(fused: bool) -> None:
    """Also one that divides by the scale itself."""
    model = Draws()
    optimizer = Notes(model.parameters(), fused=fused)
    step = TrainStep(model, optimizer, seed=0, autocast_dtype=torch.float16)
    step.data_loader = [[{"image": torch.ones(4)}]]
    with EventStorage():
        step.run(0)
    assert optimizer.seen[0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(value: float) -> None:
    step = step_on_ones()
    step.data_loader = [[{"image": torch.full((4,), value), "file_name": "a.png"}]]
    with EventStorage(), pytest.raises(FloatingPointError, match=r"rank 0: a\.png"):
        step.run(0)
    assert step.model.weight.eq(1).all()


def test_the_logged_loss_is_the_mean_of_the_accumulated_batches() -> None:
    model = Draws()
    step = TrainStep(
        model, torch.optim.SGD(model.parameters(), lr=0.0), seed=0, accumulation_steps=2
    )
    step.data_loader = [[{"image": torch.full((4,), value)}] for value in (1.0, 3.0)]
    with EventStorage() as storage:
        step.run(0)
    assert storage.latest()["total_loss"][0] == 8


def test_every_step_starts_without_gradients() -> None:
    step = step_on_ones()
    with EventStorage():
        for iteration in range(3):
            step.run(iteration)
    assert step.model.weight.tolist() == pytest.approx([0.7] * 4)
