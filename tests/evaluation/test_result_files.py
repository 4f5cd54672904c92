"""Result files: complete, standard JSON and CSV."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from maskclippp.evaluation.result_files import write_results

METRICS = {"mIoU": 41.5, "IoU-person, child": float("nan")}


PER_CLASS: list[Mapping[str, Any]] = [{"class": "person, child", "IoU": float("nan"), "seen": True}]


def write(folder: Path, per_class: Sequence[Mapping[str, Any]] = PER_CLASS) -> None:
    write_results(
        folder,
        task="sem_seg",
        dataset_name="world",
        convention="as published",
        metrics=METRICS,
        per_class=per_class,
    )


def test_undefined_values_are_null_in_json(tmp_path: Path) -> None:
    write(tmp_path / "new" / "folder")
    content = json.loads((tmp_path / "new" / "folder" / "sem_seg_evaluation.json").read_text())
    assert content["metrics"] == {"mIoU": 41.5, "IoU-person, child": None}
    assert content["convention"] == "as published"
    assert content["unit"] == "percent"


def test_csv_has_a_row_per_metric(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "sem_seg_evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == list(METRICS)
    assert [row["value"] for row in rows] == ["41.5", ""]
    assert {row["dataset"] for row in rows} == {"world"}


def test_table_per_class_keeps_synonyms_in_one_column(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "sem_seg_per_class.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"class": "person, child", "IoU": "", "seen": "True"}]


def test_confused_classes_have_a_table_of_their_own(tmp_path: Path) -> None:
    pairs = [{"true": "cup, mug", "predicted": "bowl", "count": 3, "share": 37.5}]
    write_results(
        tmp_path,
        task="mask_acc",
        dataset_name="world",
        convention="as published",
        metrics=METRICS,
        confusion_pairs=pairs,
    )
    with (tmp_path / "mask_acc_confusion_pairs.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {"true": "cup, mug", "predicted": "bowl", "count": "3", "share": "37.5"}


def test_no_temporary_file_stays(tmp_path: Path) -> None:
    write(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_table_of_an_earlier_evaluation_does_not_stay(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, per_class=())
    assert not (tmp_path / "sem_seg_per_class.csv").exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path)
    before = (tmp_path / "sem_seg_per_class.csv").read_bytes()
    with pytest.raises(ValueError, match="fieldnames"):
        write(tmp_path, per_class=[PER_CLASS[0], {"unknown column": 1.0}])
    assert (tmp_path / "sem_seg_per_class.csv").read_bytes() == before
