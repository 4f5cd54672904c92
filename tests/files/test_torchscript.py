"""TorchScript archives are read as data: nothing of their code is compiled or run."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskclippp.files.weights import CheckpointError, UnreadableCheckpointError, read_weights


class Block(nn.Module):
    """Tensors of every kind, and attributes that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.mask = torch.ones(2, 2)  # neither parameter nor buffer
        self.number = 3
        self.numbers = [1, 2]
        self.fractions = [0.5]
        self.names = ["first", "second"]
        self.register_buffer("table", torch.arange(4))

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(states) + self.mask.sum() + self.number + self.table


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.batch_norm = nn.BatchNorm1d(4)
        self.half_precision = nn.Parameter(torch.rand(3).half())
        self.sliced = nn.Parameter(torch.rand(4, 6)[:, ::2])
        self.register_buffer("empty", torch.zeros(0, 4))

    def forward(self, states: Tensor) -> Tensor:
        return (
            self.batch_norm(self.blocks(states))
            + self.half_precision.float().sum()
            + self.sliced.sum()
        )


def script(model: nn.Module) -> Any:
    return torch.jit.script(model)


def trace(model: nn.Module) -> Any:
    return torch.jit.trace(model, torch.rand(2, 4))


@pytest.mark.parametrize("compile_model", [script, trace])
def test_equals_the_state_dict_that_was_saved(
    compile_model: Callable[[nn.Module], Any], tmp_path: Path
) -> None:
    model, path = Model().eval(), tmp_path / "model.pt"
    compile_model(model).save(path)
    found, expected = read_weights(path), model.state_dict()
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value)


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Replace entries of an archive; None leaves an entry out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if (changed := change(name, content)) is not None:
                archive.writestr(name, changed)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    trace(Model().eval()).save(tmp_path / "model.pt")
    return tmp_path / "model.pt"


class _RunsCode:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "posix.system"), (eval, "builtin.*eval"), (torch.load, "torch.serialization")],
)
def test_module_trees_that_run_code_are_refused_unexecuted(
    function: Any, named: str, archive: Path, tmp_path: Path
) -> None:
    witness = tmp_path / "code_was_run"
    argument = f"touch {witness}" if function is os.system else f"open({str(witness)!r}, 'w')"
    tree = pickle.dumps(_RunsCode(function, argument), protocol=2)
    rewrite(archive, lambda name, content: tree if name.endswith("/data.pkl") else content)
    with pytest.raises(CheckpointError, match=rf"pickled code or objects and is refused.*{named}"):
        read_weights(archive)
    assert not witness.exists()


def test_code_of_the_archive_is_not_compiled(archive: Path) -> None:
    """Source that no compiler takes does not matter: only the declarations are looked at."""
    broken = b"\n  def forward(self):\n    this is no code\n"
    expected = read_weights(archive)

    def break_code(name: str, content: bytes) -> bytes:
        return content.split(b"  def ")[0] + broken if name.endswith(".py") else content

    rewrite(archive, break_code)
    with pytest.raises(RuntimeError):
        torch.jit.load(archive)
    assert list(read_weights(archive)) == list(expected)


@pytest.mark.parametrize("missing", ["/data.pkl", "/data/0", ".py"])
def test_archives_without_an_entry_are_damaged(missing: str, archive: Path) -> None:
    rewrite(archive, lambda name, content: None if name.endswith(missing) else content)
    with pytest.raises(UnreadableCheckpointError, match=r"model\.pt is damaged"):
        read_weights(archive)


@pytest.mark.parametrize(
    ("offset", "byte"),
    [(0, b"?"), (8, b"\x01"), (10, b"\x4d")],
    ids=["no entry", "encrypted", "unknown compression"],
)
def test_zip_files_with_a_broken_directory_are_damaged(
    offset: int, byte: bytes, archive: Path
) -> None:
    rewrite(archive, lambda _, content: content)
    data = bytearray(archive.read_bytes())
    first_entry = data.index(b"PK\x01\x02")
    data[first_entry + offset : first_entry + offset + 1] = byte
    archive.write_bytes(data)
    with pytest.raises(UnreadableCheckpointError, match=r"model\.pt is damaged"):
        read_weights(archive)


def test_tensors_that_reach_beyond_their_storage_are_damaged(archive: Path) -> None:
    rewrite(archive, lambda name, content: content[:4] if "/data/" in name else content)
    with pytest.raises(UnreadableCheckpointError, match="beyond its storage"):
        read_weights(archive)


def test_big_endian_tensors_are_refused(archive: Path) -> None:
    rewrite(archive, lambda name, data: b"big" if name.endswith("/byteorder") else data)
    with pytest.raises(ValueError, match="big-endian"):
        read_weights(archive)


def test_modules_that_contain_each_other_are_refused(archive: Path) -> None:
    """A module whose attribute is the module itself: its names would never end."""
    tree = b"\x80\x02c__torch__.torch.nn.modules.container\nModule\n)\x81q\x00}U\x04selfh\x00sb."
    source = b"class Module(Module):\n  __parameters__ = []\n  __buffers__ = []\n"

    def change(name: str, content: bytes) -> bytes:
        return tree if name.endswith("/data.pkl") else content

    rewrite(archive, change)
    with zipfile.ZipFile(archive, "a") as opened:
        root = opened.namelist()[0].split("/")[0]
        opened.writestr(f"{root}/code/__torch__/torch/nn/modules/container.py", source)
    with pytest.raises(CheckpointError, match="contain each other"):
        read_weights(archive)
