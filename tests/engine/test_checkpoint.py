"""Checkpoints are whole or absent, hold no code, and what does not fit is reported."""

import logging
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from maskclippp.engine.checkpoint import Checkpointer
from maskclippp.errors import MissingFileError
from maskclippp.files.weights import (
    CheckpointError,
    UnreadableCheckpointError,
    read_checkpoint,
)


class Parts(nn.Module):
    """A model that wants only two of its three parts saved."""

    checkpoint_prefixes = ("psm", "scale")

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Linear(3, 3)
        self.psm = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.rand(()))


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def filled(value: float) -> nn.Linear:
    model = nn.Linear(2, 3)
    nn.init.constant_(model.weight, value)
    nn.init.constant_(model.bias, value)
    return model


def test_checkpoint_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_bytes(b"no folder")
    with pytest.raises(OSError, match=r"model_final\.pth cannot be written.*--resume"):
        Checkpointer(filled(0.0), str(folder)).save("model_final")


def test_only_the_listed_parts_are_saved(tmp_path: Path) -> None:
    Checkpointer(Parts(), str(tmp_path)).save("parts")
    content = torch.load(tmp_path / "parts.pth", weights_only=True)
    assert list(content["model"]) == ["scale", "psm.weight", "psm.bias"]


def test_parts_that_are_never_saved_are_not_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Checkpointer(Parts(), str(tmp_path)).save("parts")
    Checkpointer(Parts()).load(str(tmp_path / "parts.pth"))
    assert "lacks" not in caplog.text


@pytest.mark.parametrize("layout", ["wrapped", "bare", "module.", "safetensors", "half"])
def test_layouts_of_files_are_understood(tmp_path: Path, layout: str) -> None:
    state = filled(0.5).state_dict()
    path = tmp_path / "weights.pth"
    if layout == "safetensors":
        path = path.with_suffix(".safetensors")
        safetensors.torch.save_file(state, path)
    elif layout == "bare":
        torch.save(state, path)
    elif layout == "half":
        torch.save({name: value.half() for name, value in state.items()}, path)
    elif layout == "module.":
        torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save({"model": state, "iteration": 3}, path)
    model = filled(0.0)
    Checkpointer(model).load(str(path))
    assert model.weight.eq(0.5).all()
    assert model.weight.dtype == torch.float32


def test_content_beside_the_model_is_returned(tmp_path: Path) -> None:
    Checkpointer(filled(1.0), str(tmp_path)).save("model_0000003", iteration=3)
    extra = Checkpointer(filled(0.0)).load(str(tmp_path / "model_0000003.pth"))
    assert extra == {"iteration": 3}


def test_keys_and_shapes_that_do_not_fit_are_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(3), "old.key": torch.ones(1)}, path)
    model = filled(0.0)
    with caplog.at_level(logging.WARNING):
        Checkpointer(model).load(str(path), complete=False)
    assert "weight: expected shape [3, 2], found [2, 2]" in caplog.text
    assert "1 keys that the model does not have, ignored: 1 in old: key" in caplog.text
    assert model.bias.eq(1).all()
    assert model.weight.eq(0).all()


def test_missing_keys_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "part.pth"
    torch.save({"bias": torch.ones(3)}, path)
    with caplog.at_level(logging.WARNING):
        Checkpointer(filled(0.0)).load(str(path), complete=False)
    assert "1 keys that the file lacks, left as they were: 1 in weight: weight" in caplog.text


def test_file_of_another_model_is_an_error_that_names_both(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"visual.conv": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r"other.pth fits.*1 in visual: conv.*1 in weight"):
        Checkpointer(filled(0.0)).load(str(path))


def test_absent_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent.pth does not exist.*MODEL.WEIGHTS"):
        Checkpointer(filled(0.0)).load(str(tmp_path / "absent.pth"))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path: Path, legacy: bool) -> None:
    path, trace = tmp_path / "model.pth", tmp_path / "executed"
    content = {"model": {"weight": torch.ones(3, 2)}, "trainer": Malicious(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="contains pickled code or objects and is refused"):
        Checkpointer(filled(0.0)).load(str(path))
    assert not trace.exists()


def test_plain_pickles_are_refused_and_not_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "model.pkl", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(CheckpointError, match=r"model.pkl contains pickled code.*safetensors"):
        Checkpointer(filled(0.0)).load(str(path))
    assert not trace.exists()


BAD_STATES = {
    "missing": ({"bias": torch.ones(3)}, "of the 2 tensors .* 1 are missing .*1 in weight"),
    "shape": ({"bias": torch.ones(3), "weight": torch.ones(2, 2)}, "1 have another shape .*weight"),
    "NaN": ({"bias": torch.ones(3), "weight": torch.full((3, 2), torch.nan)}, "NaN or infinite"),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_weights_that_do_not_fit_are_refused_unless_that_is_allowed(
    name: str, tmp_path: Path
) -> None:
    state, named = BAD_STATES[name]
    torch.save({"model": state}, tmp_path / "a.pth")
    checkpointer = Checkpointer(filled(0.0))
    with pytest.raises(CheckpointError, match=rf"a\.pth.*{named}.*ALLOW_INCOMPLETE_WEIGHTS"):
        checkpointer.load(str(tmp_path / "a.pth"))
    assert checkpointer.model.bias.eq(0).all()
    checkpointer.allow_incomplete = True
    checkpointer.load(str(tmp_path / "a.pth"))
    assert checkpointer.model.bias.eq(1).all()


def test_prefix_of_the_models_own_keys_is_kept(tmp_path: Path) -> None:
    model = nn.ModuleDict({"model": filled(1.0)})
    Checkpointer(model, str(tmp_path)).save("a")
    other = nn.ModuleDict({"model": filled(0.0)})
    Checkpointer(other).load(tmp_path / "a.pth")
    assert other["model"].weight.eq(1).all()


def test_address_that_cannot_be_reached_is_one_sentence() -> None:
    with pytest.raises(MissingFileError, match=r"http://127.0.0.1:9/a.pth could not be downloaded"):
        Checkpointer(filled(0.0)).load("http://127.0.0.1:9/a.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_file_is_recognized(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"model{suffix}"
    state = {"weight": torch.rand(300, 300)}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(UnreadableCheckpointError, match=f"model{suffix} is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"weight": "text"}}])
def test_file_without_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        read_checkpoint(path)


def test_the_folder_of_a_run_means_its_last_checkpoint(tmp_path: Path) -> None:
    for iteration, value in ((3, 3.0), (11, 11.0), (7, 7.0)):
        name = f"model_{iteration:07d}"
        Checkpointer(filled(value), str(tmp_path)).save(name, iteration=iteration)
    for last, value in (("model_0000007.pth", 7.0), ("", 11.0)):
        (tmp_path / "last_checkpoint").write_text(last)
        model = filled(0.0)
        checkpointer = Checkpointer(model)
        checkpointer.load(tmp_path)
        assert model.weight.eq(value).all()
        assert checkpointer.loaded == tmp_path / f"model_{int(value):07d}.pth"


def test_a_folder_of_the_hub_means_its_weights(tmp_path: Path) -> None:
    safetensors.torch.save_file(filled(2.0).state_dict(), tmp_path / "model.safetensors")
    model = filled(0.0)
    Checkpointer(model).load(tmp_path)
    assert model.weight.eq(2).all()


def test_a_folder_without_checkpoints_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="is a folder, and no run has left a checkpoint"):
        Checkpointer(filled(0.0)).load(tmp_path)


def test_a_scalar_may_be_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Published checkpoints lack the logit scale; a tensor of one number is no scalar."""
    model = nn.Linear(1, 1)
    model.scale = nn.Parameter(torch.tensor(2.5))
    torch.save({"model": {"weight": torch.ones(1, 1), "bias": torch.ones(1)}}, tmp_path / "a.pth")
    Checkpointer(model, str(tmp_path)).load(tmp_path / "a.pth")
    assert model.scale == 2.5
    assert "1 keys that the file lacks, left as they were: 1 in scale" in caplog.text
    torch.save({"model": {"weight": torch.ones(1, 1)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"1 are missing .*bias"):
        Checkpointer(model, str(tmp_path)).load(tmp_path / "a.pth")


def test_the_checkpoint_that_a_user_names_as_the_last_one_is_taken(tmp_path: Path) -> None:
    """To go back to an earlier one, if later ones have gone astray."""
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path))
    for iteration in (3, 7):
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    assert next(file.stem for file in checkpointer.resume_candidates()) == "model_0000007"
    checkpointer.tag_last_checkpoint("model_0000003.pth")
    assert next(file.stem for file in checkpointer.resume_candidates()) == "model_0000003"


def test_a_new_run_has_no_last_checkpoint(tmp_path: Path) -> None:
    """By which --resume without --tag would find it."""
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path))
    checkpointer.save("model_0000003", iteration=3)
    assert (tmp_path / "last_checkpoint").is_file()
    checkpointer.start_run()
    assert not (tmp_path / "last_checkpoint").exists()
    assert checkpointer.resume_candidates() == []


@pytest.mark.parametrize("writes", [True, False])
def test_only_a_process_that_writes_completes_a_run(writes: bool, tmp_path: Path) -> None:
    Checkpointer(filled(1.0), str(tmp_path)).save("model_0000003", iteration=3)
    checkpointer = Checkpointer(filled(0.0), str(tmp_path), save_to_disk=writes)
    checkpointer.resume_or_load("", resume=True)
    checkpointer.write_final()
    assert (tmp_path / "model_final.pth").is_file() == writes
