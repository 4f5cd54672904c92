"""A checkpoint of ours is what was written, or is damaged: its seal and torch's own checksums."""

import random
from pathlib import Path

import pytest
import torch

from maskclippp.files.seal import SealingWriter, read_seal
from maskclippp.files.weights import CheckpointError, read_checkpoint

CONTENT = {
    "model": {"a.weight": torch.rand(4, 5), "a.bias": torch.rand(4)},
    "trainer": {"steps": [1, 2.5], "name": "toy"},
    "iteration": 3,
}


def write_sealed(path: Path) -> None:
    with path.open("wb") as file:
        writer = SealingWriter(file)
        torch.save(CONTENT, writer)
        writer.seal({"run": "a1", "iteration": 3})


def read_flipped(path: Path, whole: bytes, bit: int) -> dict | None:
    """What is read after one bit was flipped; None if that was noticed."""
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    try:
        return read_checkpoint(path)
    except CheckpointError:
        return None


def same(found: dict) -> bool:
    return all(torch.equal(found["model"][key], value) for key, value in CONTENT["model"].items())


def test_sealed_file_is_read_and_names_its_run(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.pth")
    assert read_seal(tmp_path / "a.pth") == {"run": "a1", "iteration": 3}
    assert same(read_checkpoint(tmp_path / "a.pth"))


def test_other_programs_read_a_sealed_file(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.pth")
    assert same(torch.load(tmp_path / "a.pth", weights_only=True))


@pytest.mark.parametrize("sealed", [True, False])
def test_no_flipped_bit_changes_what_is_read(sealed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write_sealed(path) if sealed else torch.save(CONTENT, path)
    whole = path.read_bytes()
    for bit in random.Random(1).sample(range(8 * len(whole)), 150):
        found = read_flipped(path, whole, bit)
        assert found is None or (same(found) and found["trainer"] == CONTENT["trainer"]), bit


def test_nearly_every_flipped_bit_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    body = whole.index(b"MaskCLIP++")  # the rest is the seal: without it, checksums decide
    for bit in random.Random(2).sample(range(8 * body), 100):
        assert read_flipped(tmp_path / "a.pth", whole, bit) is None, bit


def test_truncation_at_any_length_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write_sealed(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 41):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"a\.pth is damaged"):
            read_checkpoint(path)


@pytest.mark.parametrize("cut", [1, 2, 40, 100])
def test_a_seal_that_is_cut_off_is_damage(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write_sealed(path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_seal(path) is None
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_a_file_of_several_blocks_is_verified_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    with path.open("wb") as file:
        writer = SealingWriter(file)
        torch.save({"model": {"a": torch.zeros(3 * 2**18)}}, writer)  # 3 MiB
        writer.seal({})
    assert len(read_checkpoint(path)["model"]["a"]) == 3 * 2**18
    whole = path.read_bytes()
    for place in (2**20 + 5, 2**21 + 2**19):
        assert read_flipped(path, whole, 8 * place) is None
