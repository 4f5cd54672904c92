"""The smallest things a trainer needs: a model, data, an evaluator."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator
from torch import Tensor, nn

RESULTS = {"sem_seg": {"mIoU": 12.5, "IoU-a": 25.0}, "panoptic_seg": {"PQ": 40.0}}


class ToyModel(nn.Module):
    """Two losses of one weight vector; in evaluation, that vector's sum per input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        if not self.training:
            return [{"sum": self.weight.sum()} for _ in batch]
        inputs = torch.stack([item["x"] for item in batch])
        prediction = (inputs * self.weight).sum(dim=1)
        return {"loss_ce": prediction.square().mean(), "loss_aux": self.weight.square().sum()}


class FixedEvaluator(DatasetEvaluator):
    """Returns the same numbers whatever it sees."""

    def evaluate(self) -> dict[str, Any]:
        return {task: dict(metrics) for task, metrics in RESULTS.items()}


class ToyTrainer(DefaultTrainer):
    """The engine's own trainer on the toy model."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        return ToyModel()

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[Any]:
        return ToyData()

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[Any]:
        return [[{"x": torch.ones(3)}]] * 7

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return FixedEvaluator()


class ToyData:
    """Endless batches of two inputs, the same in every pass."""

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(0)
        while True:
            yield [{"x": torch.rand(3, generator=generator)} for _ in range(2)]


def toy_config(folder: Path, max_iter: int, period: int = 0) -> CfgNode:
    """A config for the toy trainer: evaluation and checkpoints every ``period`` iterations."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TEST = ("toy",)
    cfg.OUTPUT_DIR = str(folder)
    cfg.SEED = 1
    cfg.SOLVER.MAX_ITER = max_iter
    cfg.SOLVER.STEPS = ()
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.WARMUP_ITERS = 0
    if period:
        cfg.SOLVER.CHECKPOINT_PERIOD = period
        cfg.TEST.EVAL_PERIOD = period
    return cfg


def weights_of(trainer: DefaultTrainer) -> Tensor:
    """The toy model's weights, detached."""
    return trainer.model.weight.detach().clone()
