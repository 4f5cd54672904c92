"""Evaluation results as files: JSON for programs, CSV for tables, each naming its convention."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskclippp.files.atomic import atomic_write, json_value, write_json


def write_results(
    folder: str | Path,
    *,
    task: str,
    dataset_name: str,
    convention: str,
    metrics: Mapping[str, float],
    per_class: Sequence[Mapping[str, Any]] = (),
    confusion_pairs: Sequence[Mapping[str, Any]] = (),
    words: Mapping[str, Any] | None = None,
) -> None:
    """Write ``<task>_evaluation`` as ``.json`` and ``.csv``, and two tables.

    The tables are ``<task>_per_class.csv`` and ``<task>_confusion_pairs.csv``. Values are
    percentages; undefined ones (NaN) are null in JSON and empty in CSV. A table without rows is not
    written, and that of an earlier evaluation is removed. The entries of ``words`` are appended to
    the JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "dataset": dataset_name,
        "task": task,
        "convention": convention,
        "unit": "percent",
        "metrics": metrics,
        "per_class": list(per_class),
        **(words or {}),
    }
    write_json(folder / f"{task}_evaluation.json", content)
    rows = [
        {"dataset": dataset_name, "task": task, "metric": name, "value": value}
        | {"convention": convention}
        for name, value in metrics.items()
    ]
    _write_csv(folder / f"{task}_evaluation.csv", rows)
    _write_csv(folder / f"{task}_per_class.csv", per_class)
    _write_csv(folder / f"{task}_confusion_pairs.csv", confusion_pairs)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, with their keys as header; remove the file if there are none."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(json_value(row) for row in rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
