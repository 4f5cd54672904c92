"""A whole run of the engine's trainer, its files, and a resume: the golden facts."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import default_argument_parser, default_setup

from tests.embedded.toy import ToyTrainer, toy_config
from tests.golden_cases import GoldenCase, cases

CASES = cases("engine_toy_run")


@pytest.fixture(autouse=True)
def _own_log_handlers() -> Iterator[None]:
    """The set-up adds handlers; those of one test must not write in the next."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    before = [list(logger.handlers) for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers


def lengths(case: GoldenCase) -> tuple[int, int]:
    """Iterations of the run, and the period of its checkpoints and evaluations."""
    max_iter = case.info["metrics_json_iterations"][-1]
    numbers = [re.search(r"model_(\d+)", name) for name in case.info["files"]]
    return max_iter, min(int(number.group(1)) for number in numbers if number) + 1


def run(folder: Path, max_iter: int, period: int, *, resume: bool = False) -> ToyTrainer:
    cfg = toy_config(folder, max_iter, period)
    cfg.freeze()
    default_setup(cfg, default_argument_parser().parse_args([]))
    trainer = ToyTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


@pytest.fixture(params=CASES, ids=str)
def finished(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[GoldenCase, Path, ToyTrainer]:
    max_iter, period = lengths(request.param)
    return request.param, tmp_path, run(tmp_path, max_iter, period)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_files_are_the_golden_ones(finished: tuple[GoldenCase, Path, ToyTrainer]) -> None:
    case, folder, _ = finished
    for pattern in case.info["files"]:
        assert len(list(folder.glob(pattern))) == 1, pattern
    found = [path.name for path in folder.iterdir() if path.suffix == ".pth"]
    assert sorted(found) == sorted(name for name in case.info["files"] if name.endswith(".pth"))
    last = (folder / "last_checkpoint").read_text()
    assert last == case.info["last_checkpoint_content"]


def test_hooks_and_writers_have_the_golden_order(
    finished: tuple[GoldenCase, Path, ToyTrainer],
) -> None:
    case, _, trainer = finished
    assert [type(hook).__name__ for hook in trainer._hooks] == case.info["hooks_in_order"]
    writers = [type(writer).__name__ for writer in trainer.build_writers()]
    assert writers == case.info["writers_in_order"]


def test_metrics_json_has_the_golden_lines(
    finished: tuple[GoldenCase, Path, ToyTrainer],
) -> None:
    case, folder, _ = finished
    lines = metrics(folder)
    assert [line["iteration"] for line in lines] == case.info["metrics_json_iterations"]
    assert [sorted(line) for line in lines] == case.info["metrics_json_keys_per_line"]
    for line, expected in zip(lines, case.info["metrics_json_eval_values"], strict=True):
        assert {name: line[name] for name in expected} == expected


def test_checkpoints_have_the_golden_content(
    finished: tuple[GoldenCase, Path, ToyTrainer],
) -> None:
    case, folder, _ = finished
    for name, (outer, inner) in case.info["checkpoint_iteration_values"].items():
        checkpoint = torch.load(folder / name, weights_only=True)
        assert list(checkpoint) == case.info["checkpoint_keys"]
        trainer = checkpoint["trainer"]
        assert list(trainer) == case.info["checkpoint_trainer_keys"]
        assert {k: sorted(v) for k, v in trainer["hooks"].items()} == (
            case.info["checkpoint_trainer_hooks"]
        )
        assert list(trainer["_trainer"]) == case.info["checkpoint_trainer__trainer_keys"]
        assert [checkpoint["iteration"], trainer["iteration"]] == [outer, inner]


def test_log_mentions_the_golden_events(
    finished: tuple[GoldenCase, Path, ToyTrainer],
) -> None:
    case, folder, _ = finished
    log = (folder / "log.txt").read_text()
    for text, count in case.info["log_mentions"].items():
        assert log.count(text) == count, text
    copied = re.findall(r"copypaste: (.*)", log)
    assert [line.split(",")[0] for line in copied[: len(case.info["copypaste_lines"])]] == (
        case.info["copypaste_lines"]
    )


def test_resume_starts_after_the_last_checkpoint(
    finished: tuple[GoldenCase, Path, ToyTrainer],
) -> None:
    case, folder, _ = finished
    max_iter, period = lengths(case)
    cfg = toy_config(folder, max_iter + 5, period)
    trainer = ToyTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == case.info["resume_start_iter"]
    assert trainer.scheduler.last_epoch == case.info["resume_scheduler_last_epoch"]
    trainer.train()
    assert metrics(folder)[-1]["iteration"] == max_iter + 5


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    class SameBatch(ToyTrainer):
        @classmethod
        def build_train_loader(cls, cfg: Any) -> Any:
            return [[{"x": torch.ones(3)}]] * cfg.SOLVER.MAX_ITER

    def train(folder: Path, max_iter: int, *, stop_at: int | None = None) -> SameBatch:
        cfg = toy_config(folder, max_iter, 10)
        trainer = SameBatch(cfg)
        trainer.resume_or_load(resume=True)
        trainer.max_iter = stop_at or max_iter
        trainer.train()
        return trainer

    whole = train(tmp_path / "whole", 20)
    train(tmp_path / "parts", 20, stop_at=10)
    parts = train(tmp_path / "parts", 20)
    assert torch.equal(whole.model.weight, parts.model.weight)
