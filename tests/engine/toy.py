"""A toy model, toy data and a toy evaluator, small enough to train in milliseconds."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from maskclippp.config.keys import get_cfg
from maskclippp.data.loader import build_train_loader
from maskclippp.engine import Trainer

TOY_RESULTS = {"sem_seg": {"mIoU": 12.5, "IoU-a": 25.0}, "panoptic_seg": {"PQ": 40.0}}
CLASSES = 4


def toy_records() -> list[dict[str, Any]]:
    """Twelve records, landscape and portrait, whose "images" a seed stands for."""
    return [
        {
            "file_name": f"image_{index}.png",
            "width": 8 if index % 3 else 4,
            "height": 6,
            "label": index % CLASSES,
        }
        for index in range(12)
    ]


def toy_mapper(record: dict[str, Any]) -> dict[str, Any]:
    """An image that depends on the record and on all three random generators."""
    noise = np.random.rand(3, 4, 4) + random.random() + torch.rand(()).item()
    image = torch.as_tensor(noise, dtype=torch.float32) + record["label"]
    return {**record, "image": image}


@META_ARCH_REGISTRY.register()
class ToyModel(nn.Module):
    """Two losses; uses the generators that a step seeds: dropout (torch) and ``random``."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.encoder = nn.Linear(48, 8)
        self.head = nn.Linear(8, CLASSES)
        self.dropout = nn.Dropout(0.0 if cfg.TEST.AUG.FLIP else 0.3)
        self.noise = not cfg.TEST.AUG.FLIP
        self.to(cfg.MODEL.DEVICE)

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        if not self.training:
            return [{} for _ in batch]
        images = torch.stack([record["image"] for record in batch]).flatten(1)
        labels = torch.tensor([record["label"] for record in batch])
        features = self.dropout(self.encoder(images))
        if self.noise:
            features = features * (0.5 + random.random())
        logits = self.head(features)
        return {
            "loss_ce": nn.functional.cross_entropy(logits, labels),
            "loss_aux": 0.1 * features.square().mean(),
        }


class FixedEvaluator(DatasetEvaluator):
    """Returns always the same numbers."""

    def reset(self) -> None:
        """Nothing to forget."""

    def process(self, inputs: Any, outputs: Any) -> None:
        """Nothing to count."""

    def evaluate(self) -> dict[str, Any]:
        """The numbers."""
        return TOY_RESULTS


class ToyTrainer(Trainer):
    """The trainer under test, on toy data."""

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_batch: int = 0) -> Any:
        return build_train_loader(cfg, mapper=toy_mapper, start_batch=start_batch)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return build_detection_test_loader(cfg, dataset_name, mapper=toy_mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return FixedEvaluator()


def toy_config(output_dir: Path, *options: Any, deterministic_model: bool = False) -> CfgNode:
    """A frozen config for the toy trainer; ``options`` are KEY, VALUE, ..."""
    for name in ("toy_train", "toy_val"):
        if name not in DatasetCatalog.list():
            DatasetCatalog.register(name, toy_records)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ToyModel"
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TRAIN = ("toy_train",)
    cfg.DATASETS.TEST = ()
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    cfg.SOLVER.WARMUP_ITERS = 2
    cfg.SOLVER.MAX_ITER = 8
    cfg.SOLVER.CHECKPOINT_PERIOD = 4
    cfg.SEED = 7
    cfg.TEST.AUG.FLIP = deterministic_model
    cfg.OUTPUT_DIR = str(output_dir)
    cfg.merge_from_list(list(options))
    cfg.freeze()
    output_dir.mkdir(parents=True, exist_ok=True)
    return cfg


class KillAfter(HookBase):
    """A real signal, sent to this very process at the end of an iteration."""

    def __init__(self, iteration: int, number: int = signal.SIGKILL) -> None:
        self._iteration = iteration
        self._number = number

    def after_step(self) -> None:
        if self.trainer.iter == self._iteration:
            os.kill(os.getpid(), self._number)


def run_toy_training(
    cfg: CfgNode,
    *,
    resume: bool = False,
    kill_after: int | None = None,
    stop_after: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> ToyTrainer:
    """Train in this process, as one of ``world_size`` gloo processes.

    Their process group is left to the caller, who must not destroy it before the trainer.
    """
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{cfg.OUTPUT_DIR}/rendezvous_{resume}_{kill_after}_{stop_after}",
            rank=rank,
            world_size=world_size,
        )
    trainer = ToyTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    if kill_after is not None and rank == 0:
        # The others lose it, as when a machine fails. If they were killed as well, this one
        # might lose them first, in the last exchange of the step, and end with an error.
        trainer.register_hooks([KillAfter(kill_after)])
    if stop_after is not None and rank == world_size - 1:
        trainer.register_hooks([KillAfter(stop_after, signal.SIGTERM)])
    trainer.train()
    return trainer
