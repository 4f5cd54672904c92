"""The training loop: order of events, failures, hooks."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, hooks
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from tests.embedded.toy import ToyData, ToyModel, ToyTrainer, toy_config, weights_of


def simple_trainer(model: nn.Module) -> SimpleTrainer:
    return SimpleTrainer(model, ToyData(), torch.optim.SGD(model.parameters(), lr=0.1))


class Journal(HookBase):
    """Notes what is called, with the iteration."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, int]] = []

    def before_train(self) -> None:
        self.entries.append(("before_train", self.trainer.iter))

    def before_step(self) -> None:
        self.entries.append(("before_step", self.trainer.iter))

    def after_step(self) -> None:
        self.entries.append(("after_step", self.trainer.iter))

    def after_train(self) -> None:
        self.entries.append(("after_train", self.trainer.iter))


class LossOf(nn.Module):
    """A model whose losses are given functions of its one weight."""

    def __init__(self, **losses: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.losses = losses

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return {name: loss(self.weight) for name, loss in self.losses.items()}


def test_hooks_are_called_in_order() -> None:
    journal = Journal()
    trainer = simple_trainer(ToyModel())
    trainer.register_hooks([journal, None])
    trainer.train(3, 5)
    assert journal.entries == [
        ("before_train", 3),
        ("before_step", 3),
        ("after_step", 3),
        ("before_step", 4),
        ("after_step", 4),
        ("after_train", 5),
    ]


def test_a_step_is_gradient_descent_on_the_sum_of_the_losses() -> None:
    trainer = simple_trainer(LossOf(loss_a=lambda w: 2 * w, loss_b=lambda w: 3 * w))
    trainer.train(0, 1)
    assert trainer.model.weight.item() == pytest.approx(1 - 0.1 * 5)


def test_a_single_loss_is_recorded_as_total_loss_only() -> None:
    trainer = simple_trainer(LossOf(loss_a=lambda w: 2 * w))
    trainer.train(0, 1)
    assert trainer.storage.latest()["total_loss"] == (2.0, 0)
    assert "loss_a" not in trainer.storage.latest()


def test_a_tensor_counts_as_total_loss() -> None:
    class OneLoss(LossOf):
        def forward(self, batch: Any) -> Any:
            return self.weight * 4

    trainer = simple_trainer(OneLoss())
    trainer.train(0, 1)
    assert trainer.storage.latest()["total_loss"] == (4.0, 0)


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    trainer = simple_trainer(LossOf(loss_a=lambda w: w / 0, loss_b=lambda w: w))
    with pytest.raises(FloatingPointError, match="iteration=7"):
        trainer.train(7, 9)
    assert trainer.model.weight.item() == 1.0


def test_after_train_hooks_run_after_an_exception() -> None:
    journal = Journal()
    trainer = simple_trainer(LossOf(loss_a=lambda w: w / 0))
    trainer.register_hooks([journal])
    with pytest.raises(FloatingPointError):
        trainer.train(0, 3)
    assert journal.entries[-1] == ("after_train", 0)


def test_mixed_precision_training_needs_cuda() -> None:
    if torch.cuda.is_available():
        model = LossOf(loss_a=lambda w: w).cuda()
        AMPTrainer(model, ToyData(), torch.optim.SGD(model.parameters(), lr=0.1)).train(0, 1)
        assert model.weight.item() == pytest.approx(0.9)
        return
    model = LossOf(loss_a=lambda w: w)
    trainer = AMPTrainer(model, ToyData(), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(AssertionError, match="CUDA"):
        trainer.train(0, 1)


def test_evaluation_does_not_run_after_an_exception() -> None:
    evaluations = []
    trainer = simple_trainer(LossOf(loss_a=lambda w: w / 0))
    trainer.register_hooks([hooks.EvalHook(0, lambda: evaluations.append(1))])
    with pytest.raises(FloatingPointError):
        trainer.train(0, 3)
    assert evaluations == []


def test_evaluation_runs_every_period_and_after_the_last_iteration() -> None:
    evaluations = []
    trainer = simple_trainer(ToyModel())
    trainer.register_hooks([hooks.EvalHook(2, lambda: evaluations.append(trainer.iter))])
    trainer.train(0, 6)
    assert evaluations == [1, 3, 6]


def test_the_lr_shown_is_that_of_the_largest_group() -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = torch.optim.SGD(
        [{"params": parameters[:1], "lr": 1.0}, {"params": parameters[1:], "lr": 2.0}]
    )
    assert hooks.LRScheduler.get_best_param_group_id(optimizer) == 1


def test_with_one_parameter_per_group_the_commonest_lr_is_shown() -> None:
    rates = [1.0, 2.0, 2.0]
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    )
    chosen = hooks.LRScheduler.get_best_param_group_id(optimizer)
    assert optimizer.param_groups[chosen]["lr"] == 2.0


def test_evaluation_results_must_be_numbers() -> None:
    trainer = simple_trainer(ToyModel())
    trainer.register_hooks([hooks.EvalHook(1, lambda: {"task": {"metric": "good"}})])
    with pytest.raises(ValueError, match="task/metric"):
        trainer.train(0, 3)


def test_state_of_hooks_that_are_gone_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    trainer = simple_trainer(ToyModel())
    state = {**trainer.state_dict(), "hooks": {"GoneHook": {"a": 1}}}
    with caplog.at_level(logging.WARNING):
        logging.getLogger("detectron2").propagate = True
        trainer.load_state_dict(state)
    assert "GoneHook" in caplog.text


def test_scaling_to_another_number_of_processes() -> None:
    cfg = toy_config(Path("unused"), max_iter=301, period=33)
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    cfg.SOLVER.IMS_PER_BATCH = 16
    cfg.SOLVER.STEPS = (100, 200)
    cfg.freeze()
    scaled = ToyTrainer.auto_scale_workers(cfg, 3)
    solver = scaled.SOLVER
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.STEPS) == (6, 803, (267, 533))
    assert (solver.CHECKPOINT_PERIOD, scaled.TEST.EVAL_PERIOD) == (88, 88)
    assert pytest.approx(0.01 * 3 / 8) == solver.BASE_LR
    assert scaled.is_frozen()
    assert cfg.SOLVER.MAX_ITER == 301


def test_expected_results_are_verified_after_training(tmp_path: Path) -> None:
    cfg = toy_config(tmp_path, max_iter=2)
    cfg.TEST.EXPECTED_RESULTS = [["sem_seg", "mIoU", 12.5, 0.1]]
    assert ToyTrainer(cfg).train()["sem_seg"]["mIoU"] == 12.5
    cfg.TEST.EXPECTED_RESULTS = [["sem_seg", "mIoU", 99.0, 0.1]]
    with pytest.raises(SystemExit):
        ToyTrainer(cfg).train()


def test_training_changes_the_weights_and_lowers_the_loss(tmp_path: Path) -> None:
    trainer = ToyTrainer(toy_config(tmp_path, max_iter=30))
    before = weights_of(trainer)
    trainer.train()
    losses = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert not torch.equal(before, weights_of(trainer))
    assert losses[-1] < losses[0] / 2


def test_storage_is_gone_after_training() -> None:
    trainer = simple_trainer(ToyModel())
    trainer.train(0, 1)
    assert isinstance(trainer.storage, EventStorage)
    assert trainer.storage.iter == 1
