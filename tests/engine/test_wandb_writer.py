"""A run logs to W&B without a network, and closes what it opened."""

import builtins
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from maskclippp.engine.wandb_writer import WandbWriter
from tests.engine.toy import run_toy_training, toy_config

BLOCK, FILE_HEADER, CHUNK_HEADER = 32768, 7, 7
FULL, LAST = 1, 4


def read_log(content: bytes) -> Iterator[bytes]:
    """The messages of a W&B file, which is a LevelDB log behind a header of its own."""
    position, message = FILE_HEADER, b""
    while position + CHUNK_HEADER <= len(content):
        if BLOCK - position % BLOCK < CHUNK_HEADER:  # no chunk fits into the rest of a block
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += CHUNK_HEADER
        message += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield message
            message = b""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Everything that an offline run of the toy trainer wrote for W&B."""
    folder = tmp_path_factory.mktemp("config_name") / "tag"
    cfg = toy_config(
        folder, "WANDB.ENABLED", True, "DATASETS.TEST", ("toy_val",), "TEST.EVAL_PERIOD", 4
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        run_toy_training(cfg)
    assert wandb.run is None
    wandb.teardown()  # waits until the service has written its file
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = []
    for message in read_log(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        found.append(record)
    return found


def test_run_is_named_after_config_and_tag(records: list[Any]) -> None:
    (run,) = [record.run for record in records if record.HasField("run")]
    assert run.project == "maskclippp"
    assert run.display_name.startswith("config_name")
    assert run.display_name.endswith("/tag")


def test_losses_and_evaluation_results_are_logged(records: list[Any]) -> None:
    names = {
        item.key or ".".join(item.nested_key)
        for record in records
        if record.HasField("history")
        for item in record.history.item
    }
    assert {"total_loss", "loss_ce", "lr", "sem_seg/mIoU"} <= names


def test_run_is_finished(records: list[Any]) -> None:
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]


def test_missing_package_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without_wandb(name: str, *arguments: Any) -> Any:
        if name == "wandb":
            raise ImportError(name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_wandb)
    with pytest.raises(ImportError, match=r"pip install 'maskclippp\[wandb\]'"):
        WandbWriter.from_config(toy_config(tmp_path))
