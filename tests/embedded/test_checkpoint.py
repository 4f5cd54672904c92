"""Checkpoints: what is saved, what is loaded, what is refused."""

import logging
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from torch import nn


def filled(value: float) -> nn.Module:
    model = nn.Linear(2, 3)
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


@pytest.fixture(autouse=True)
def _messages_reach_caplog() -> None:
    logging.getLogger("detectron2").propagate = True
    logging.getLogger("fvcore").propagate = True


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    DetectionCheckpointer(filled(2.0), str(tmp_path)).save("model_0000001", iteration=1)
    model = filled(0.0)
    checkpointer = DetectionCheckpointer(model, str(tmp_path))
    assert checkpointer.has_checkpoint()
    extra = checkpointer.resume_or_load("", resume=True)
    assert (model.weight == 2.0).all()
    assert extra == {"iteration": 1}


def test_an_optimizer_is_saved_and_loaded_with_the_model(tmp_path: Path) -> None:
    model = filled(1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("first")
    other = filled(0.0)
    loaded = torch.optim.Adam(other.parameters(), lr=0.1)
    DetectionCheckpointer(other, str(tmp_path), optimizer=loaded).resume_or_load("", resume=True)
    assert loaded.param_groups[0]["lr"] == 0.5
    assert loaded.state_dict()["state"][0]["step"] == 1


def test_without_resume_only_the_model_is_loaded(tmp_path: Path) -> None:
    model = filled(2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("first")
    other = filled(0.0)
    untouched = torch.optim.SGD(other.parameters(), lr=0.1)
    DetectionCheckpointer(other, str(tmp_path), optimizer=untouched).resume_or_load(
        str(tmp_path / "first.pth"), resume=False
    )
    assert (other.weight == 2.0).all()
    assert untouched.param_groups[0]["lr"] == 0.1


def test_a_bare_state_dict_is_taken_as_the_model(tmp_path: Path) -> None:
    torch.save(filled(3.0).state_dict(), tmp_path / "bare.pth")
    model = filled(0.0)
    DetectionCheckpointer(model).load(str(tmp_path / "bare.pth"))
    assert (model.bias == 3.0).all()


def test_the_prefix_of_parallel_models_is_stripped(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in filled(3.0).state_dict().items()}
    torch.save({"model": state}, tmp_path / "parallel.pth")
    model = filled(0.0)
    DetectionCheckpointer(model).load(str(tmp_path / "parallel.pth"))
    assert (model.weight == 3.0).all()


def test_another_shape_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {**filled(3.0).state_dict(), "bias": torch.ones(7)}
    torch.save({"model": state}, tmp_path / "other.pth")
    model = filled(0.0)
    DetectionCheckpointer(model).load(str(tmp_path / "other.pth"))
    assert (model.weight == 3.0).all()
    assert (model.bias == 0.0).all()
    assert "bias" in caplog.text


def test_keys_that_do_not_match_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(
        {"model": {"weight": torch.ones(3, 2), "strange": torch.ones(1)}}, tmp_path / "a.pth"
    )
    DetectionCheckpointer(filled(0.0)).load(str(tmp_path / "a.pth"))
    assert "bias" in caplog.text
    assert "strange" in caplog.text


def test_no_path_means_no_checkpoint() -> None:
    model = filled(4.0)
    assert DetectionCheckpointer(model).load("") == {}
    assert (model.weight == 4.0).all()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, OSError)):
        DetectionCheckpointer(filled(0.0)).load(str(tmp_path / "missing.pth"))


def test_periodic_checkpoints_and_the_final_one(tmp_path: Path) -> None:
    checkpointer = DetectionCheckpointer(filled(0.0), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, 2, max_iter=5)
    for iteration in range(5):
        periodic.step(iteration)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000001.pth",
        "model_0000003.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
