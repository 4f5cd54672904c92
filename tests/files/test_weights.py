"""Weight files of all layouts are read, and none of them can run code."""

import contextlib
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from maskclippp.errors import InputError
from maskclippp.files.weights import (
    CheckpointError,
    UnreadableCheckpointError,
    read_checkpoint,
    read_weights,
)


def make_state() -> dict[str, Tensor]:
    return {"visual.weight": torch.rand(3, 4), "logit_scale": torch.tensor(2.5)}


def check(path: Path, expected: dict[str, Tensor]) -> None:
    found = read_weights(path)
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_safetensors(tmp_path: Path) -> None:
    state = dict(sorted(make_state().items()))
    save_file(state, tmp_path / "weights.safetensors")
    check(tmp_path / "weights.safetensors", state)


@pytest.mark.parametrize(
    "wrappers",
    [(), ("model",), ("state_dict",), ("module",), ("model_ema",), ("state_dict", "model")],
)
@pytest.mark.parametrize("suffix", ["pt", "pth", "bin"])
def test_pytorch_files_and_their_wrappers(
    wrappers: tuple[str, ...], suffix: str, tmp_path: Path
) -> None:
    state = make_state()
    content: Any = state
    for wrapper in wrappers:
        content = {wrapper: content, "epoch": 3, "name": "some model"}
    torch.save(content, tmp_path / f"weights.{suffix}")
    check(tmp_path / f"weights.{suffix}", state)


@pytest.mark.parametrize("setting", [torch.float16, torch.device("cuda", 0), {1, 2}])
def test_settings_beside_the_weights_are_no_obstacle(setting: Any, tmp_path: Path) -> None:
    content = {"model": {"a": torch.ones(2)}, "setting": setting}
    torch.save(content, tmp_path / "a.pth", pickle_protocol=3)
    assert read_weights(tmp_path / "a.pth")["a"].tolist() == [1, 1]


def test_prefix_of_data_parallel_training_is_removed(tmp_path: Path) -> None:
    state = make_state()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "weights.pt")
    check(tmp_path / "weights.pt", state)


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module._orig_mod.", "clip.", "ema."])
def test_other_prefixes_are_removed_too(prefix: str, tmp_path: Path) -> None:
    state = make_state()
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {f"{prefix}{key}": value for key, value in state.items()}}, path)
    check(path, state)


def test_averaged_weights_beside_the_others_are_left_out(tmp_path: Path) -> None:
    state = make_state()
    both = {f"model.{key}": value for key, value in state.items()}
    both |= {f"ema.{key}": value + 1 for key, value in state.items()}
    torch.save({"state_dict": both, "ema": {}}, tmp_path / "weights.pt")
    check(tmp_path / "weights.pt", state)


def test_counter_of_an_averaged_model_is_left_out(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    torch.save(averaged.state_dict(), tmp_path / "weights.pt")
    check(tmp_path / "weights.pt", model.state_dict())


def test_prefix_that_the_caller_expects_is_kept(tmp_path: Path) -> None:
    torch.save({"module.clip.visual.proj": torch.ones(2)}, tmp_path / "weights.pt")
    assert list(read_weights(tmp_path / "weights.pt", known=["clip."])) == ["clip.visual.proj"]


def test_what_was_taken_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ema = {"module.a": torch.ones(2)}
    torch.save({"model": ema, "model_ema": ema}, tmp_path / "weights.pt")
    with caplog.at_level("INFO"):
        read_weights(tmp_path / "weights.pt")
    assert "took 'model', not 'model_ema'" in caplog.text
    assert "without the prefixes ['module.']" in caplog.text


def test_safetensors_under_another_name_are_read(tmp_path: Path) -> None:
    state = dict(sorted(make_state().items()))
    save_file(state, tmp_path / "weights.pth")
    check(tmp_path / "weights.pth", state)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>not found</html>", "saved web page"),
        (b"\x1f\x8b\x08rest", "gzip archive"),
        (b"", "empty"),
        (bytes(600), "full of zeros"),
        (b"weights.pt".ljust(257, b"\0") + b"ustar\x0000", "tar archive"),
        (b"\xef\xbb\xbf<html>not found</html>", "saved web page"),
    ],
)
def test_what_a_failed_download_leaves_is_named(content: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"weights\.pt is damaged.*it is .*{named}"):
        read_weights(tmp_path / "weights.pt")


def make_shards(folder: Path, state: dict[str, Tensor], **changes: str) -> Path:
    names = {key: f"model-0000{i}-of-00002.safetensors" for i, key in enumerate(state, start=1)}
    for key, name in names.items():
        save_file({key: state[key]}, folder / name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names | changes}))
    return index


def test_sharded_weights_are_read_by_their_index(tmp_path: Path) -> None:
    state = make_state()
    check(make_shards(tmp_path, state), state)


@pytest.mark.parametrize("place", ["../weights.pt", "/etc/passwd", "model.safetensors.index.json"])
def test_index_names_files_of_its_folder_only(place: str, tmp_path: Path) -> None:
    index = make_shards(tmp_path, make_state(), logit_scale=place)
    with pytest.raises(InputError, match=r"index\.json: expected the name of a file.*logit_scale"):
        read_weights(index)


def test_key_that_a_shard_lacks_is_named(tmp_path: Path) -> None:
    index = make_shards(tmp_path, make_state(), other="model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002.*lacks \['other'\]"):
        read_weights(index)


def test_half_precision_is_kept(tmp_path: Path) -> None:
    state = {"weight": torch.rand(3).half()}
    torch.save(state, tmp_path / "weights.pt")
    check(tmp_path / "weights.pt", state)


class _RunsCode:
    """What a malicious checkpoint looks like: unpickling it calls a function."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickled_code_is_refused_and_never_run(writer: str, tmp_path: Path) -> None:
    path, witness = tmp_path / "weights.pth", tmp_path / "code_was_run"
    content = {"model": make_state(), "extra": _RunsCode(witness)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="contains pickled code or objects and is refused") as e:
        read_weights(path)
    assert str(path) in str(e.value)
    assert not witness.exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kept", [0, 20, -30])
def test_a_truncated_file_is_named(suffix: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(make_state(), path)
    else:
        save_file(make_state(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is damaged") as error:
        read_weights(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("position", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_rotten_bytes_are_damage_or_are_not_noticed(
    zipped: bool, position: float, tmp_path: Path
) -> None:
    """No other error than the one at which a run resumes from the checkpoint before."""
    path = tmp_path / "weights.pt"
    torch.save(make_state(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    start = int(position * len(whole))
    for rotten in range(start, min(start + 60, len(whole))):
        path.write_bytes(whole[:rotten] + bytes([whole[rotten] ^ 0xFF]) + whole[rotten + 1 :])
        with contextlib.suppress(CheckpointError):
            assert set(read_weights(path))


def test_a_text_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_text("a page that says: not found")
    with pytest.raises(CheckpointError, match=r"weights\.pt is damaged, .* or not a checkpoint"):
        read_weights(tmp_path / "weights.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt does not exist"):
        read_weights(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [1, 2], {"model": {}}])
def test_a_file_without_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt"):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("member", "content", "named"),
    [
        ("weights/data.pkl", b"x", "members overlap"),
        ("other/data.pkl", b"x", "no data.pkl"),
        ("weights/extra", bytes(2**26 + 1), "or are compressed"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_torch_does_not_write_are_refused(
    member: str, content: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(make_state(), path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    with pytest.raises(UnreadableCheckpointError, match=rf"weights\.pt is damaged.*{named}"):
        read_weights(path)


def test_the_weights_themselves_come_before_a_second_copy(tmp_path: Path) -> None:
    """The order of names is one of preference, wherever they stand in a file."""
    for first in ("state_dict", "model"):
        content = {"model": {"a": torch.zeros(1)}, "state_dict": {"a": torch.ones(1)}}
        torch.save({first: content.pop(first), **content}, tmp_path / "weights.pt")
        assert read_weights(tmp_path / "weights.pt")["a"] == 1


def test_a_bare_state_dict_is_held_once(tmp_path: Path) -> None:
    torch.save(make_state(), tmp_path / "weights.pt")
    assert list(read_checkpoint(tmp_path / "weights.pt")) == ["model"]


def test_members_that_lie_in_each_other_are_refused(tmp_path: Path) -> None:
    """Each would take the memory of all that follow it."""
    path = tmp_path / "weights.pt"
    torch.save({f"{number}": torch.rand(500) for number in range(4)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"written anew"
        end = archive.start_dir
        for member in archive.filelist:
            if "/data/" in member.filename:
                member.file_size = member.compress_size = end - member.header_offset - 200
    with pytest.raises(UnreadableCheckpointError, match="its members overlap"):
        read_weights(path)


def test_a_tensor_that_repeats_one_number_forever_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(2**28 + 1)}, tmp_path / "weights.pt")
    with pytest.raises(UnreadableCheckpointError, match="a tensor repeats its storage too often"):
        read_weights(tmp_path / "weights.pt")
    torch.save({"a": torch.ones(1).expand(5, 4)}, tmp_path / "weights.pt")
    assert torch.equal(read_weights(tmp_path / "weights.pt")["a"], torch.ones(5, 4))


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (b"little_endianq\x02\x88", b"little_endianq\x02\x89", "its tensors are big-endian"),
        (b"M,\x01", b"M\xff\xff", "its storages are larger than the file"),
        (b"", b"\x80\x02]q\x00.", "it lacks tensor storages"),
    ],
    ids=["byte order", "size", "keys"],
)
def test_files_of_old_torch_that_it_does_not_write_are_refused(
    before: bytes, after: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.rand(15, 20)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    if not before:  # the last pickle lists their keys
        start = content.rindex(b"\x80\x02]q\x00")
        before = content[start : content.index(b".", start) + 1]
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, after))
    with pytest.raises(UnreadableCheckpointError, match=named):
        read_weights(path)
