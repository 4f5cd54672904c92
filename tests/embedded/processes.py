"""What the processes of the launch tests run; results go to files, one per rank."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import build_detection_test_loader
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm

from tests.embedded.toy import toy_config


def report(folder: str, **values: Any) -> None:
    """Write this rank's values to ``<folder>/<rank>.json``."""
    (Path(folder) / f"{comm.get_rank()}.json").write_text(json.dumps(values))


def reports(folder: Path) -> list[dict[str, Any]]:
    """The values of all ranks, in order."""
    files = sorted(folder.glob("*.json"), key=lambda file: int(file.stem))
    return [json.loads(file.read_text()) for file in files]


class Collect(DatasetEvaluator):
    """Gathers what every rank has seen."""

    def reset(self) -> None:
        self.seen: list[int] = []

    def process(self, inputs: Any, outputs: Any) -> None:
        self.seen += [item["doubled"] for item in outputs]

    def evaluate(self) -> dict[str, Any] | None:
        everything = comm.gather(self.seen)
        return {"seen": everything} if comm.is_main_process() else None


def place() -> dict[str, Any]:
    """Where this process stands."""
    return {
        "rank": comm.get_rank(),
        "world": comm.get_world_size(),
        "local_rank": comm.get_local_rank(),
        "main": comm.is_main_process(),
        "backend": torch.distributed.get_backend(),
    }


def report_place(folder: str) -> None:
    """Only say where this process stands."""
    report(folder, **place())


def do_everything(folder: str) -> None:
    """Communicate, evaluate ten records together, set up a run and draw random numbers.

    One function, because starting processes takes longer than all of this.
    """
    rank = comm.get_rank()
    comm.synchronize()
    loader = build_detection_test_loader([{"index": index} for index in range(10)], mapper=dict)
    results = inference_on_dataset(
        lambda batch: [{"doubled": 2 * item["index"]} for item in batch], loader, Collect()
    )
    cfg = toy_config(Path(folder) / "output", max_iter=1)
    default_setup(cfg, default_argument_parser().parse_args([]))
    report(
        folder,
        **place(),
        all_gather=comm.all_gather({"rank": rank, "text": "x" * rank}),
        gather=comm.gather([rank]),
        seed=comm.shared_random_seed(),
        results=results,
        draws=[random.random(), float(np.random.rand()), float(torch.rand(()))],
    )


def fail_on_second(folder: str) -> None:
    """Rank 1 fails."""
    if comm.get_rank() == 1:
        raise ValueError("rank 1 has no luck")
