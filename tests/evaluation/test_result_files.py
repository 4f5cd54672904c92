"""Result files: complete, standard JSON and CSV."""

import csv
import json
from pathlib import Path

from maskclippp.evaluation.result_files import write_results

METRICS = {"mIoU": 41.5, "IoU-person, child": float("nan")}


def write(folder: Path) -> None:
    write_results(
        folder,
        task="sem_seg",
        dataset_name="world",
        convention="as published",
        metrics=METRICS,
        per_class=[{"class": "person, child", "IoU": float("nan"), "seen": True}],
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


def test_no_temporary_file_stays(tmp_path: Path) -> None:
    write(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
