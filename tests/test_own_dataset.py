"""The files and commands of docs/own_dataset.md work, on real images where there are some."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

import train_maskclippp
from maskclippp.config.yaml_files import read_yaml
from maskclippp.data.builtin import coco_panoptic
from maskclippp.data.semantic_maps import read_semantic_labels
from maskclippp.files.images import read_panoptic_ids
from maskclippp.masks.run_length import area, box, encode_mask
from tests.data.panoptic_scene import make_coco_panoptic
from tests.data.real_samples import find_samples
from tests.documents import blocks, commands, write_files
from tests.golden_cases import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "own_dataset.md"
CONFIGS = [block.file for block in blocks(DOCUMENT, "yaml")]
COMMANDS = [shlex.join(command.words) for command in commands(DOCUMENT)]
WORDS = blocks(DOCUMENT, "text")[0].text
PERSON = 0  # of COCO panoptic; its things are 0..79


def write_own_data(root: Path, folder: Path) -> None:
    """A COCO panoptic dataset below ``root`` as the document's my_data, in both its forms.

    Persons, the rest of the things and everything else are the three classes of the index PNGs.
    """
    records = coco_panoptic("val").load(root)
    for name in ("images", "labels", "panoptic"):
        (folder / name).mkdir(parents=True)
    (folder / "words.txt").write_text(WORDS)
    for record in records:
        image, panoptic = Path(record["file_name"]), Path(record["pan_seg_file_name"])
        shutil.copy(image, folder / "images")
        shutil.copy(panoptic, folder / "panoptic")
        classes = read_semantic_labels(record, 255).labels
        labels = np.select([classes == 255, classes == PERSON, classes < 80], [255, 0, 1], 2)
        Image.fromarray(labels.astype(np.uint8)).save(folder / "labels" / f"{image.stem}.png")
    shutil.copy(root / coco_panoptic("val").annotations, folder / "panoptic.json")
    (folder / "instances.json").write_text(json.dumps(own_instances(records)))


def own_instances(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The things of panoptic records as COCO instance annotation, category ids from 0."""
    images, annotations = [], []
    for record in records:
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        height, width = ids.shape
        name = Path(record["file_name"]).name
        image = {"id": record["image_id"], "file_name": name, "height": height, "width": width}
        images.append(image)
        for segment in record["segments_info"]:
            code = encode_mask(ids == segment["id"])
            entry = {
                "id": len(annotations),
                "image_id": record["image_id"],
                "category_id": segment["category_id"],
                "iscrowd": segment["iscrowd"],
                "segmentation": code,
                "area": area(code),
                "bbox": box(code),
            }
            annotations += [entry] if segment["isthing"] else []
    names = MetadataCatalog.get("openvocab_coco_2017_val_panoptic_with_sem_seg").thing_classes
    categories = [{"id": i, "name": name.partition(",")[0]} for i, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the document's configs, in which its commands can be called."""
    write_files(DOCUMENT, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(params=["real", "drawn"])
def data(request: pytest.FixtureRequest, project: Path, tmp_path: Path) -> str:
    """The document's my_data: of the real sample images where they are, and of drawn ones."""
    samples = find_samples() if request.param == "real" else None
    root = samples or make_coco_panoptic(tmp_path / "drawn")
    write_own_data(root, project / "my_data")
    return str(request.param)


def run(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Call a command of the document in this process."""
    program, script, *arguments = shlex.split(command)
    assert (program, script) == ("python", "train_maskclippp.py")
    options = ["DATALOADER.NUM_WORKERS", "0", "MODEL.MASKCLIPPP.TEMPLATES", "t1"]
    monkeypatch.setattr("sys.argv", [script, *arguments, *options])
    train_maskclippp.command_line()


def results(config: str, tag: str, dataset: str, file: str = "results.json") -> dict[str, Any]:
    folder = Path("output", config, tag, "inference", dataset)
    content: dict[str, Any] = json.loads((folder / file).read_text())
    return content


@pytest.mark.processes
@pytest.mark.usefixtures("data")
def test_the_commands_train_and_evaluate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        run(monkeypatch, command)
    for config, tag, dataset in (
        ("my_dataset", "trial", "my_dataset"),
        ("my_dataset", "words", "my_dataset"),
        ("my_panoptic", "trial", "my_panoptic"),
    ):
        assert 0 <= results(config, tag, dataset)["results"]["sem_seg"]["mIoU"] <= 100
    assert 0 <= results("my_instances", "trial", "my_instances")["results"]["segm"]["AP"] <= 100
    assert "panoptic_seg" in results("my_panoptic", "trial", "my_panoptic")["results"]
    trial, words = (results("my_dataset", tag, "my_dataset") for tag in ("trial", "words"))
    assert trial["test_vocabulary"]["classes"] == 3
    assert trial["test_vocabulary"]["names"] == 7
    assert trial["test_vocabulary"] == trial["train_vocabulary"]
    assert words["test_vocabulary"]["source"] == "the words 'human, hound, meadow'"
    assert words["test_vocabulary"]["sha256"] != trial["test_vocabulary"]["sha256"]
    assert words["train_vocabulary"] == trial["train_vocabulary"]
    detailed = results("my_dataset", "words", "my_dataset", "sem_seg_evaluation.json")
    assert detailed["test_vocabulary"] == words["test_vocabulary"]


@pytest.mark.processes
@pytest.mark.usefixtures("data")
def test_test_sets_of_one_run_may_have_different_words(monkeypatch: pytest.MonkeyPatch) -> None:
    customs = [entry for name in CONFIGS for entry in read_yaml(Path(name))["DATASETS"]["CUSTOM"]]
    command = COMMANDS[1].replace("trial", "both")
    options = f"DATASETS.CUSTOM {json.dumps(str(customs))} DATASETS.TEST "
    run(monkeypatch, f"{command} MODEL.WEIGHTS '' {options} \"('my_dataset', 'my_panoptic')\"")
    first, second = (results("my_dataset", "both", n) for n in ("my_dataset", "my_panoptic"))
    assert first["test_vocabulary"]["classes"] == 3
    assert second["test_vocabulary"]["classes"] > 3
    assert first["train_vocabulary"] == second["train_vocabulary"]


@pytest.mark.usefixtures("data")
def test_training_sets_of_one_run_must_have_the_same_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = COMMANDS[0].replace("trial", "mixed")
    train = "\"('my_dataset', 'shapes_train')\""
    with pytest.raises(SystemExit):
        run(monkeypatch, f"{command} DATASETS.TRAIN {train}")
    assert "'my_dataset' (3 classes) and 'shapes_train'" in capsys.readouterr().err
