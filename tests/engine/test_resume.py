"""A run of 2N iterations equals N, a real kill, and a resumed run, bit for bit."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.engine.interruption import INTERRUPTED_STATUS, interruptible, request_stop
from maskclippp.files.weights import CheckpointError
from tests.engine.processes import run_in_processes, train_in_processes
from tests.engine.toy import ToyTrainer, run_toy_training, toy_config

KILLED = -9


def assert_equal(first: Any, second: Any, where: str = "checkpoint") -> None:
    """Exact equality of nested containers of tensors and numbers."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def assert_same_final_checkpoint(first: Path, second: Path) -> None:
    contents = [torch.load(folder / "model_final.pth") for folder in (first, second)]
    assert_equal(*contents)


@pytest.mark.parametrize(
    ("world_size", "options"),
    [
        (1, ()),
        (1, ("DATALOADER.NUM_WORKERS", 1, "SOLVER.ACCUMULATION_STEPS", 2)),
        (2, ("SOLVER.OPTIMIZER", "SGD")),
    ],
    ids=["one process", "workers and accumulation", "two processes"],
)
def test_killed_and_resumed_run_equals_uninterrupted_one(
    tmp_path: Path, world_size: int, options: tuple[Any, ...]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ranks = {"world_size": world_size}
    assert train_in_processes(whole, *options, **ranks) == [0] * world_size
    assert train_in_processes(parts, *options, kill_after=5, **ranks)[0] == KILLED
    assert not (parts / "model_final.pth").exists()
    assert train_in_processes(parts, *options, resume=True, **ranks) == [0] * world_size
    assert_same_final_checkpoint(whole, parts)


@pytest.mark.parametrize("world_size", [1, 2])
def test_sigterm_ends_all_ranks_after_the_step_with_a_checkpoint(
    tmp_path: Path, world_size: int
) -> None:
    """Also if only one of them is asked to stop."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ranks = {"world_size": world_size}
    assert train_in_processes(whole, **ranks) == [0] * world_size
    assert train_in_processes(parts, stop_after=4, **ranks) == [INTERRUPTED_STATUS] * world_size
    stopped = torch.load(parts / (parts / "last_checkpoint").read_text())
    assert stopped["iteration"] in (4, 5)
    assert train_in_processes(parts, resume=True, **ranks) == [0] * world_size
    assert_same_final_checkpoint(whole, parts)


def test_five_kills_change_nothing_and_every_iteration_has_one_line(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ("SOLVER.MAX_ITER", 90, "SOLVER.CHECKPOINT_PERIOD", 7)
    assert train_in_processes(whole, *options) == [0]
    for kill_after in (4, 22, 43, 48, 81):
        codes = train_in_processes(parts, *options, kill_after=kill_after, resume=True)
        assert codes == [KILLED]
    assert train_in_processes(parts, *options, resume=True) == [0]
    assert_same_final_checkpoint(whole, parts)
    lines = [
        [json.loads(line)["iteration"] for line in (run / "metrics.json").read_text().splitlines()]
        for run in (whole, parts)
    ]
    assert lines[0] == lines[1] == [19, 39, 59, 79, 89]


def test_rates_of_a_continued_run_are_those_of_its_config(tmp_path: Path) -> None:
    run_toy_training(toy_config(tmp_path))
    options = ("SOLVER.MAX_ITER", 16, "SOLVER.BASE_LR", 0.02, "SOLVER.WEIGHT_DECAY", 0.5)
    run_toy_training(toy_config(tmp_path / "fresh", *options))
    resumed = ToyTrainer(toy_config(tmp_path, *options))
    resumed.resume_or_load(resume=True)
    state = torch.load(tmp_path / "fresh" / "model_0000007.pth")["trainer"]["_trainer"]["optimizer"]
    expected = state["param_groups"]
    found = resumed.optimizer.state_dict()["param_groups"]
    assert [g["lr"] for g in found] == [g["lr"] for g in expected]
    assert [g["weight_decay"] for g in found] == [g["weight_decay"] for g in expected]


def test_random_seed_is_shared_stored_and_restored(tmp_path: Path) -> None:
    trainer = run_toy_training(toy_config(tmp_path, "SEED", -1, "SOLVER.MAX_ITER", 4))
    resumed = ToyTrainer(toy_config(tmp_path, "SEED", -1))
    assert resumed.cfg.SEED != trainer.cfg.SEED
    resumed.resume_or_load(resume=True)
    assert resumed.cfg.SEED == trainer.cfg.SEED
    assert resumed.train_step.seed == trainer.cfg.SEED


def test_random_seed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert train_in_processes(parts, "SEED", -1, kill_after=4) == [KILLED]
    seed = torch.load(parts / "model_0000003.pth")["trainer"]["seed"]
    assert train_in_processes(parts, "SEED", -1, resume=True) == [0]
    run_toy_training(toy_config(whole, "SEED", seed))
    assert_same_final_checkpoint(whole, parts)


def test_truncated_newest_checkpoint_is_reported_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_toy_training(toy_config(whole, "SOLVER.MAX_ITER", 7))
    run_toy_training(toy_config(parts, "SOLVER.MAX_ITER", 7))
    newest = parts / "model_final.pth"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    with caplog.at_level(logging.ERROR):
        resumed = run_toy_training(toy_config(parts, "SOLVER.MAX_ITER", 7), resume=True)
    assert resumed.start_iter == 4
    assert "model_final.pth is damaged" in caplog.text
    assert_same_final_checkpoint(whole, parts)


@pytest.mark.parametrize("junk", [b"<html>gone</html>", b"abc\n", b"\x80\x02}q."])
def test_junk_as_newest_checkpoint_is_passed_over(junk: bytes, tmp_path: Path) -> None:
    run_toy_training(toy_config(tmp_path, "SOLVER.MAX_ITER", 7))
    (tmp_path / "model_final.pth").write_bytes(junk)
    trainer = ToyTrainer(toy_config(tmp_path, "SOLVER.MAX_ITER", 7))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 4


def test_checkpoints_of_an_earlier_run_are_not_those_of_the_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_toy_training(toy_config(tmp_path))
    before = (tmp_path / "model_0000003.pth").read_bytes()
    assert train_in_processes(tmp_path, kill_after=1) == [KILLED]
    resumed = ToyTrainer(toy_config(tmp_path))
    with pytest.raises(CheckpointError, match=r"model_0000003\.pth.* belong to another one"):
        resumed.resume_or_load(resume=True)
    assert (tmp_path / "model_0000003.pth").read_bytes() == before
    assert "not of the run that was started last, ignored: model_0000003.pth" in caplog.text


def test_without_last_checkpoint_the_iteration_decides(tmp_path: Path) -> None:
    run_toy_training(toy_config(tmp_path))
    (tmp_path / "last_checkpoint").unlink()
    os.utime(tmp_path / "model_0000003.pth", (2e9, 2e9))
    assert Checkpointer(nn.Linear(1, 1), str(tmp_path)).resume_candidates()[0].name == (
        "model_final.pth"
    )


def test_the_iteration_in_the_name_decides_between_files_of_older_versions(tmp_path: Path) -> None:
    """They have no seal."""
    for age, name in enumerate(("model_final", "model_0000007", "model_0000003")):
        torch.save({"model": {}}, tmp_path / f"{name}.pth")
        os.utime(tmp_path / f"{name}.pth", (1e9 + age, 1e9 + age))
    found = Checkpointer(nn.Linear(1, 1), str(tmp_path)).resume_candidates()
    assert [file.stem for file in found] == ["model_final", "model_0000007", "model_0000003"]


def test_kill_between_the_last_checkpoint_and_the_final_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_toy_training(toy_config(whole))
    run_toy_training(toy_config(parts))
    (parts / "model_final.pth").unlink()
    (parts / "last_checkpoint").write_text("model_0000007.pth")
    run_toy_training(toy_config(parts), resume=True)
    assert_same_final_checkpoint(whole, parts)
    assert (parts / "last_checkpoint").read_text() == "model_final.pth"


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    run_toy_training(toy_config(tmp_path))
    leftover = tmp_path / ".model_0000003.pth.123.0123abcd.tmp"
    leftover.write_bytes(b"half")
    ToyTrainer(toy_config(tmp_path)).resume_or_load(resume=True)
    assert not leftover.exists()


def test_all_checkpoints_damaged_is_an_error(tmp_path: Path) -> None:
    run_toy_training(toy_config(tmp_path))
    for file in tmp_path.glob("model_*.pth"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"all 3 checkpoints .* are damaged"):
        ToyTrainer(toy_config(tmp_path)).resume_or_load(resume=True)


def test_resume_without_checkpoint_starts_from_the_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = ToyTrainer(toy_config(tmp_path))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert "nothing to resume" in caplog.text


def test_checkpoint_without_last_checkpoint_file_is_found(tmp_path: Path) -> None:
    run_toy_training(toy_config(tmp_path))
    (tmp_path / "last_checkpoint").unlink()
    trainer = ToyTrainer(toy_config(tmp_path))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 8


def test_resume_from_bare_weights_is_refused_with_the_remedy(tmp_path: Path) -> None:
    trainer = ToyTrainer(toy_config(tmp_path))
    Checkpointer(trainer.model, str(tmp_path)).save("model_final")
    with pytest.raises(CheckpointError, match=r"no trainer state.*MODEL.WEIGHTS"):
        trainer.resume_or_load(resume=True)


def test_resume_with_another_optimizer_is_refused_with_the_remedy(tmp_path: Path) -> None:
    trainer = run_toy_training(toy_config(tmp_path))
    state = trainer.train_step.state_dict()
    state["optimizer"]["param_groups"].pop()
    with pytest.raises(ValueError, match=r"optimizer state does not fit.*--resume"):
        trainer.train_step.load_state_dict(state)


def test_weights_without_resume_start_a_new_run(tmp_path: Path) -> None:
    first = run_toy_training(toy_config(tmp_path / "first"))
    weights = str(tmp_path / "first" / "model_final.pth")
    second = ToyTrainer(toy_config(tmp_path / "second", "MODEL.WEIGHTS", weights))
    second.resume_or_load(resume=False)
    assert second.start_iter == 0
    assert_equal(dict(first.model.state_dict()), dict(second.model.state_dict()))


def _stopped_before_a_block(*, rank: int, world_size: int) -> None:
    request_stop()
    with interruptible(at_once=False):
        pass  # training notes it itself
    with interruptible(at_once=True):
        os._exit(1)


def test_a_signal_that_came_before_an_evaluation_stops_it() -> None:
    assert run_in_processes(_stopped_before_a_block, world_size=1) == [INTERRUPTED_STATUS]
