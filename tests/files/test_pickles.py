"""Pickles of numpy arrays are read as data; whatever else they ask for is refused, unexecuted."""

import builtins
import io
import os
import pickle
import pickletools
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskclippp.files.pickles import (
    NUMPY_GLOBALS,
    ForbiddenPickleError,
    Permitted,
    read_numpy_pickle,
)
from maskclippp.files.torch_files import TORCH_GLOBALS
from maskclippp.files.torchscript import SCRIPT_GLOBALS
from maskclippp.files.weights import (
    CheckpointError,
    UnreadableCheckpointError,
    read_checkpoint,
    read_weights,
)

ARRAYS = {
    "float32": np.arange(12, dtype=np.float32).reshape(3, 4),
    "float16": np.arange(3, dtype=np.float16),
    "int64": np.arange(4),
    "bool": np.array([True, False]),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 3), np.float32),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">f4"),
    "view": np.arange(10.0)[::-2],
}

ARRAY_FUNCTIONS = ("_reconstruct", "scalar")
STORAGES = (
    *("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool"),
    *("ComplexFloat", "ComplexDouble"),
)
DTYPES = (
    *("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8"),
    *("bool", "complex64", "complex128"),
)


def write(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_become_tensors(name: str, protocol: int, tmp_path: Path) -> None:
    array = ARRAYS[name]
    content = read_numpy_pickle(write(tmp_path / "a.pkl", {"array": array}, protocol))
    tensor = content["array"]
    assert tensor.shape == array.shape
    assert tensor.dtype == torch.from_numpy(np.array(array, array.dtype.newbyteorder("="))).dtype
    assert tensor.tolist() == array.tolist()
    tensor.zero_()  # it may be written: it owns its memory


def test_numpy_1_and_numpy_2_name_their_functions_differently(tmp_path: Path) -> None:
    data = pickle.dumps(np.arange(3.0), protocol=2)
    assert data.count(b"numpy._core.multiarray") == 1
    (tmp_path / "a.pkl").write_bytes(data.replace(b"numpy._core.multi", b"numpy.core.multi"))
    assert read_numpy_pickle(tmp_path / "a.pkl").tolist() == [0, 1, 2]


def test_python_2_wrote_bytes_as_text(tmp_path: Path) -> None:
    """A str of Python 2 (opcode U) in the place of the array's bytes."""
    array = np.array([1.5, -2.0], np.float32)
    data = pickletools.optimize(pickle.dumps(array, protocol=2))
    # At the end: BINGET of _codecs.encode, the text, the call, the state's tuple, BUILD, STOP.
    before_content = data[: data.rindex(b"h\x00X")]
    text = b"U" + bytes([array.nbytes]) + array.tobytes()
    (tmp_path / "a.pkl").write_bytes(before_content + text + b"tb.")
    assert read_numpy_pickle(tmp_path / "a.pkl").tolist() == [1.5, -2.0]


def test_plain_containers_and_numbers_are_kept(tmp_path: Path) -> None:
    content = {
        "ordered": OrderedDict(a=1),
        "list": [1, (2.5, "three"), None, True, b"bytes"],
        "number": np.float32(0.25),
    }
    assert read_numpy_pickle(write(tmp_path / "a.pkl", content)) == content


def test_detectron_files_are_weights_and_checkpoints(tmp_path: Path) -> None:
    model = {"backbone.weight": np.ones((2, 3), np.float32)}
    path = write(tmp_path / "a.pkl", {"model": model, "__author__": "someone"}, protocol=4)
    assert torch.equal(read_weights(path)["backbone.weight"], torch.ones(2, 3))
    assert torch.equal(read_checkpoint(path)["model"]["backbone.weight"], torch.ones(2, 3))


class Calls:
    """Unpickling it calls a function, whose only argument is the path of a witness."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def object_array(content: Any) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = content
    return array


def hostile(witness: Path) -> dict[str, tuple[Any, str]]:
    """Contents that would make the witness, and what the refusal has to name."""
    statement = f"__import__('pathlib').Path({str(witness)!r}).touch()"
    return {
        "system": (Calls(os.system, f"touch {witness}"), "posix.system"),
        "eval": (Calls(builtins.eval, statement), "builtin"),
        "mkdir in a model": ({"model": {"w": Calls(os.mkdir, str(witness))}}, "posix.mkdir"),
        "in an object array": (object_array(Calls(os.mkdir, str(witness))), "type 'O8'"),
        "torch function": (Calls(torch.load, str(witness)), "torch.serialization.load"),
        "torch tensor": ({"w": torch.ones(2)}, "torch._utils._rebuild_tensor_v2"),
        "numpy function": (Calls(np.fromfile, str(witness)), "numpy"),
        "parser": (Calls(np.fromstring, "1"), "numpy.*fromstring"),
        "class": (Path("x"), "pathlib"),
        "getattr": (Calls(getattr, "text", "upper"), "builtin"),
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", hostile(Path("w")))
def test_anything_else_is_refused_by_name_and_never_run(
    name: str, protocol: int, tmp_path: Path
) -> None:
    witness = tmp_path / "code_was_run"
    content, named = hostile(witness)[name]
    path = write(tmp_path / "model.pkl", content, protocol)
    with pytest.raises(
        CheckpointError,
        match=rf"model\.pkl contains pickled code or objects and is refused.*{named}",
    ):
        read_weights(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "array",
    [
        object_array([1]),
        np.array(["text"]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]),
    ],
    ids=lambda array: array.dtype.kind,
)
def test_arrays_of_no_numbers_are_refused(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ForbiddenPickleError, match="not numbers"):
        read_numpy_pickle(write(tmp_path / "a.pkl", [array]))


def test_permitted_functions_cannot_be_altered_by_a_file(tmp_path: Path) -> None:
    """BUILD on a function would set its attributes for all later files."""
    program = b"\x80\x02c_codecs\nencode\n}U\x0c__defaults__)sb."
    (tmp_path / "a.pkl").write_bytes(program)
    with pytest.raises(ForbiddenPickleError, match="modifies a function"):
        read_numpy_pickle(tmp_path / "a.pkl")
    assert not hasattr(Permitted(len, print), "__dict__")


def test_the_admitted_names_are_exactly_these() -> None:
    """A function that parses, builds or evaluates anything must never join them."""
    arrays = {f"numpy.{core}.multiarray.{n}" for core in ("core", "_core") for n in ARRAY_FUNCTIONS}
    arrays |= {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
    plain = {"collections.OrderedDict", "collections.Counter", "__builtin__.set", "builtins.set"}
    plain |= {"__builtin__.bytes", "_codecs.encode"}
    storages = {f"torch.{kind}Storage" for kind in STORAGES}
    tensors = {f"torch._utils.{name}" for name in ("_rebuild_tensor_v2", "_rebuild_parameter")}
    types = {f"torch.{name}" for name in DTYPES}
    lists = {f"torch.jit._pickle.build_{kind}list" for kind in ("int", "double", "bool", "tensor")}
    numpy = plain | arrays | {"numpy.ndarray", "numpy.dtype"}
    assert set(NUMPY_GLOBALS) == numpy
    assert set(TORCH_GLOBALS) == numpy | storages | tensors | types | {"torch.Size", "torch.device"}
    assert set(SCRIPT_GLOBALS) == {
        *("collections.OrderedDict", "torch._utils._rebuild_tensor_v2"),
        "torch.jit._pickle.restore_type_tag",
        *(storages | lists),
    }


# A memo index of 2^31 - 1; 4 GiB of bytes that are not there; a text that is encoded 10,000 times;
# a key whose hash takes 2^100 steps; a function that is given its own tensor.
BOMBS = {
    "memo": b"\x80\x02]r\xff\xff\xff\x7f.",
    "bytes": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",
    "text": b"\x80\x02X\x00\x00\x10\x00"
    + b"a" * 2**20
    + b"q\x000c_codecs\nencode\nq\x010]"
    + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86Ra" * 10_000
    + b".",
    "key": b"\x80\x02})" + b"2\x86" * 100 + b"Ns.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_short_pickles_take_little_memory_and_time(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"a\.pkl"):
            read_weights(tmp_path / "a.pkl")
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_arrays_that_share_their_bytes_do_not_multiply_them(tmp_path: Path) -> None:
    content = np.ones(2**16, np.float32).tobytes()
    arrays = [Calls(np.frombuffer, content) for _ in range(3)]
    for array in arrays:
        state = (1, (2**16,), np.dtype("f4"), False, content)
        array.reduced = (*np.arange(1, dtype="f4").__reduce__()[:2], state)
    path = write(tmp_path / "a.pkl", dict(zip("abc", arrays, strict=True)))
    with pytest.raises(CheckpointError, match="share their content"):
        read_weights(path)


def test_what_is_shared_in_a_file_is_converted_once(tmp_path: Path) -> None:
    """Lists that hold the list before them twice would otherwise fill the memory."""
    content: Any = [ARRAYS["float32"]]
    for _ in range(100):
        content = [content, content]
    found = read_numpy_pickle(write(tmp_path / "a.pkl", content))
    assert found[0] is found[1]


@pytest.mark.parametrize("kept", [0, 1, 20, -1, -20])
def test_a_truncated_pickle_is_damaged(kept: int, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pkl", {"model": ARRAYS})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UnreadableCheckpointError, match=r"model\.pkl is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "state",
    [(1, (5,), "f4", False, b"1234"), (1, (1,), None, False, b"1234"), (1,), None],
)
def test_inconsistent_arrays_are_refused(state: Any, tmp_path: Path) -> None:
    """A shape that the bytes do not fill, no element type, too short a state, none."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=2)
    reduced = np.arange(1, dtype="f4").__reduce__()
    element = np.dtype("f4")
    if isinstance(state, tuple):
        state = tuple(element if part == "f4" else part for part in state)
    holder = Calls.__new__(Calls)
    holder.reduced = (*reduced[:2], state)
    pickler.dump({"w": holder})
    (tmp_path / "model.pkl").write_bytes(stream.getvalue())
    with pytest.raises(CheckpointError, match=r"model\.pkl"):
        read_weights(tmp_path / "model.pkl")


@pytest.mark.parametrize("encoding", [b"utf-7", b"rot13", b"utf_16"])
def test_text_is_encoded_as_bytes_were_written_and_not_otherwise(
    encoding: bytes, tmp_path: Path
) -> None:
    name = b"X" + len(encoding).to_bytes(4, "little") + encoding
    content = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00a" + name + b"\x86R."
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"encodes text as '{encoding.decode()}'"):
        read_weights(tmp_path / "a.pkl")
