"""Good files, altered at random: they work as before, or one sentence names them."""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from maskclippp.config.yaml_files import read_yaml
from maskclippp.errors import InputError
from maskclippp.files.images import read_image, read_label_map
from maskclippp.files.weights import read_weights
from maskclippp.masks.mask_files import read_masks, write_masks

SIZE = (6, 9)
MASKS = torch.zeros(2, *SIZE, dtype=torch.bool)
MASKS[0, :2], MASKS[1, 3:, 4:] = True, True
CONFIG = "MODEL: &m\n  SIZES: [1, 2.5, '3']\n  NAME: text\nOTHER: *m\nLIST: [[1, 2], {a: null}]\n"


def written(write: Callable[[Path], Any], suffix: str, folder: Path) -> bytes:
    path = folder / f"good{suffix}"
    write(path)
    return path.read_bytes()


def picture(format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(54, dtype=np.uint8).reshape(SIZE)).save(stream, format)
    return stream.getvalue()


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "checkpoint": (".pth", read_weights),
    "legacy": (".pt", read_weights),
    "pickle": (".pkl", read_weights),
    "npy": (".npy", lambda path: read_masks(path, SIZE)),
    "npz": (".npz", lambda path: read_masks(path, SIZE)),
    "json": (".json", lambda path: read_masks(path, SIZE)),
    "png": (".png", read_label_map),
    "tiff": (".tif", read_label_map),
    "jpeg": (".jpg", read_image),
    "yaml": (".yaml", read_yaml),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    state = {"a.weight": torch.rand(3, 2), "b": torch.arange(4)}
    arrays = {"model": {"a": np.ones((2, 3), np.float32)}}
    content = {
        "checkpoint": written(
            lambda p: torch.save({"model": state, "iteration": 3}, p), ".1", folder
        ),
        "legacy": written(
            lambda p: torch.save(state, p, _use_new_zipfile_serialization=False), ".2", folder
        ),
        "pickle": written(
            lambda p: p.write_bytes(__import__("pickle").dumps(arrays)), ".3", folder
        ),
        "png": picture("PNG"),
        "tiff": picture("TIFF"),
        "jpeg": picture("JPEG"),
        "yaml": CONFIG.encode(),
    }
    for name in ("npy", "npz", "json"):
        content[name] = written(lambda p: write_masks(p, MASKS), f".{name}", folder)
    return content


EXTRAS = st.binary(max_size=6)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat"]), st.floats(0, 1), st.binary(max_size=6)
    ),
    min_size=1,
    max_size=3,
)


def altered(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for change, place, extra in changes:
        start = int(place * len(content))
        if change == "flip":
            content = content[:start] + extra + content[start + len(extra) :]
        elif change == "cut":
            content = content[:start]
        elif change == "insert":
            content = content[:start] + extra + content[start:]
        else:
            content = content[:start] + content[max(0, start - 20) :]
    return content


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged TIFF files
@pytest.mark.parametrize("name", READERS)
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=CHANGES)
def test_altered_files_work_or_are_named(
    name: str, changes: list[tuple[str, float, bytes]], good: dict[str, bytes], tmp_path: Path
) -> None:
    suffix, read = READERS[name]
    path = tmp_path / f"altered{suffix}"
    path.write_bytes(altered(good[name], changes))
    unnamed = None
    try:
        read(path)
    except InputError as error:
        unnamed = None if path.name in str(error) else str(error)
    assert unnamed is None


def header_of(shape: str) -> bytes:
    header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode()
    return b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"


def npz(folder: Path, content: bytes) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("masks.npy", content)
    return folder / "a.npz"


def rle_bomb(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps([{"size": [9999, 9999], "counts": [1]}] * 999))
    return folder / "a.json"


LARGE = header_of("(20, 999, 999)") + bytes(20 * 999**2)
BOMBS: dict[str, Callable[[Path], Path]] = {
    "npy of another size": lambda folder: npy(folder, "(1000000, 1000000)"),
    "npy of too many masks": lambda folder: npy(folder, "(10000000000, 6, 9)"),
    "npy that is not filled": lambda folder: npy(folder, "(100000, 6, 9)"),
    "npz of another size": lambda folder: npz(
        folder, header_of("(99, 999, 999)") + bytes(99 * 999**2)
    ),
    "npz that is not filled": lambda folder: npz(folder, header_of("(1000000, 6, 9)")),
    "codes of another size": rle_bomb,
}


def npy(folder: Path, shape: str) -> Path:
    (folder / "a.npy").write_bytes(header_of(shape))
    return folder / "a.npy"


@pytest.mark.parametrize("name", BOMBS)
def test_masks_that_cannot_be_those_of_the_image_take_no_memory(name: str, tmp_path: Path) -> None:
    path = BOMBS[name](tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=path.name):
            read_masks(path, SIZE)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_postscript_named_as_a_picture_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was_run\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(InputError, match=r"a\.jpg cannot be read: it is a PostScript document"):
        read_image(tmp_path / "a.jpg")
    assert not (tmp_path / "was_run").exists()


def test_every_flipped_bit_of_a_label_map_is_noticed(tmp_path: Path) -> None:
    whole = picture("PNG")
    for bit in range(8 * 8, 8 * len(whole), 7):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.png").write_bytes(flipped)
        with pytest.raises(InputError, match=r"a\.png"):
            read_label_map(tmp_path / "a.png")
