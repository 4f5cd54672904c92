"""What only the embedded engine promises; run as a program on it, reports to standard output.

A program of its own, because the process of the tests may run on an installed detectron2.
"""

import datetime
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler
from detectron2.engine import create_ddp_model, launch
from detectron2.evaluation import inference_context
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, JSONWriter
from torch import nn

from tests.embedded.toy import ToyTrainer, toy_config


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def error_of(action: Callable[[], Any]) -> str:
    """Class and message of the error that ``action`` raises."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - the tests say which error it must be
        return f"{type(error).__name__}: {error}"
    return "no error"


def python_tag(folder: Path) -> dict[str, Any]:
    target = folder / "made_by_yaml"
    file = folder / "tag.yaml"
    file.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{target}']\n")
    unsafe = error_of(lambda: get_cfg().merge_from_file(str(file), allow_unsafe=True))
    error = error_of(lambda: get_cfg().merge_from_file(str(file)))
    return {"error": error, "unsafe": unsafe, "executed": target.exists()}


def pickled_code(folder: Path) -> dict[str, Any]:
    target = folder / "made_by_pickle"
    torch.save({"model": Payload(target)}, folder / "bad.pth")
    error = error_of(lambda: DetectionCheckpointer(nn.Linear(1, 1)).load(str(folder / "bad.pth")))
    return {"error": error, "executed": target.exists()}


def pickle_file(folder: Path) -> dict[str, Any]:
    target = folder / "made_by_pkl"
    (folder / "bad.pkl").write_bytes(pickle.dumps(Payload(target)))
    error = error_of(lambda: DetectionCheckpointer(nn.Linear(1, 1)).load(str(folder / "bad.pkl")))
    return {"error": error, "executed": target.exists()}


def mode_after_exception(folder: Path) -> dict[str, Any]:
    model = nn.Linear(1, 1).train()

    def fail() -> None:
        with inference_context(model):
            raise RuntimeError("in the context")

    return {"error": error_of(fail), "training": model.training}


def missing_mapper(folder: Path) -> str:
    return error_of(lambda: build_detection_test_loader(get_cfg(), "unused", mapper=None))


def precise_batch_norm(folder: Path) -> str:
    cfg = toy_config(folder / "precise", max_iter=1)
    cfg.TEST.PRECISE_BN.ENABLED = True
    return error_of(lambda: ToyTrainer(cfg))


def step_in_parallel(file: str) -> None:
    """One step of two CPU processes, each with one half of the batch."""
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    parallel = create_ddp_model(model, broadcast_buffers=False)
    rank = float(comm.get_rank())
    parallel(torch.tensor([[1.0 + rank, 2.0 + rank]])).square().mean().backward()
    if comm.is_main_process():
        assert model.weight.grad is not None
        Path(file).write_text(json.dumps(model.weight.grad.tolist()))


def parallel_gradients(folder: Path) -> dict[str, Any]:
    file = folder / "gradients.json"
    launch(step_in_parallel, 2, dist_url="auto", args=(str(file),))
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    model(torch.tensor([[1.0, 2.0], [2.0, 3.0]])).square().mean().backward()
    assert model.weight.grad is not None
    return {"two": json.loads(file.read_text()), "one": model.weight.grad.tolist()}


def empty_subset(folder: Path) -> str:
    return error_of(lambda: RandomSubsetTrainingSampler(20, 0.04))


def repeat_factors_without_annotations(folder: Path) -> str:
    records = [{"annotations": []}, {"file_name": "bare.jpg"}]
    compute = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    return error_of(lambda: compute(records, 0.1))


def mixed_records(folder: Path) -> list[int]:
    crowd, thing = ({"annotations": [{"iscrowd": value}]} for value in (1, 0))
    rows: list[dict[str, Any]] = [{}, crowd, thing, {"annotations": []}]
    DatasetCatalog.register("mixed", lambda: [{**row, "n": n} for n, row in enumerate(rows)])
    return [record["n"] for record in get_detection_dataset_dicts("mixed", filter_empty=True)]


def metrics_after_a_kill(folder: Path) -> list[str]:
    file = folder / "metrics.json"
    file.write_text('{"a": 1.0, "iteration": 0}\n{"a": 2.0, "iter')
    with EventStorage(5) as storage:
        writer = JSONWriter(str(file))
        storage.put_scalars(a=3.0, b=float("nan"), c=float("inf"))
        writer.write()
        writer.close()
    JSONWriter(str(file)).close()  # a whole last line must not get an empty one behind it
    return file.read_text().split("\n")


def report_timeouts(file: str) -> None:
    """Timeouts in seconds of the world and of the group beside an NCCL world."""
    groups = [torch.distributed.group.WORLD, comm._gloo_group()]
    options = [group._get_backend(torch.device("cpu")).options for group in groups]
    if comm.is_main_process():
        Path(file).write_text(json.dumps([o._timeout.total_seconds() for o in options]))


def group_timeouts(folder: Path) -> list[float]:
    file = folder / "timeouts.json"
    limit = datetime.timedelta(seconds=77)
    launch(report_timeouts, 2, dist_url="auto", args=(str(file),), timeout=limit)
    timeouts: list[float] = json.loads(file.read_text())
    return timeouts


CHECKS = (
    python_tag,
    pickled_code,
    pickle_file,
    mode_after_exception,
    missing_mapper,
    precise_batch_norm,
    parallel_gradients,
    empty_subset,
    repeat_factors_without_annotations,
    mixed_records,
    metrics_after_a_kill,
    group_timeouts,
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        report: dict[str, Any] = {check.__name__: check(Path(name)) for check in CHECKS}
    report["engine"] = detectron2.__file__
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
