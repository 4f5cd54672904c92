"""The command ``datasets``: what is registered, and what is there."""

import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskclippp.cli.datasets import main
from maskclippp.errors import InputError

NAME = "cli_datasets_partly"


@pytest.fixture(autouse=True)
def registered(tmp_path: Path) -> None:
    """A dataset with images and label maps, whose panoptic annotation is missing."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)
    DatasetCatalog.register(NAME, list)
    MetadataCatalog.get(NAME).set(
        image_root=str(tmp_path / "images"),
        sem_seg_root=str(tmp_path / "labels"),
        panoptic_json=str(tmp_path / "panoptic.json"),
    )


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    main(arguments)
    lines = capsys.readouterr().out.splitlines()
    return {name: state for name, _, state in (line.partition(" ") for line in lines)}


def test_complete_partly_and_missing_datasets_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = lines_of(capsys)
    assert states["shapes_val"].strip() in ("present", "built in")
    assert states[NAME].strip() == f"partly: without {tmp_path}/panoptic.json"
    assert "missing: " in states["openvocab_ade20k_panoptic_val"]
    assert set(states) == set(DatasetCatalog.list())


def test_a_part_of_the_name_selects(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(lines_of(capsys, "datasets_part")) == {NAME}
    with pytest.raises(
        InputError, match=r"'openvocab_ade20k_panoptc_val'; similar names: .*panoptic_val"
    ):
        main(["openvocab_ade20k_panoptc_val"])


def test_datasets_of_a_config_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images" / "a.jpg").touch()
    (tmp_path / "labels" / "a.png").touch()
    entry = {"name": "cli_own", "kind": "index_png", "words": ["sky", "dog"]}
    entry |= {"images": f"{tmp_path}/images", "annotations": f"{tmp_path}/labels"}
    (tmp_path / "own.yaml").write_text(f"DATASETS: {{CUSTOM: [{entry}]}}")
    states = lines_of(capsys, "cli_own", "--config-file", str(tmp_path / "own.yaml"))
    assert states["cli_own"].strip() == "present"


def test_a_reader_may_leave() -> None:
    """``maskclippp datasets | head -1`` ends without a complaint."""
    command = f"{sys.executable} -m maskclippp datasets | true"
    done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    assert done.stderr == ""
