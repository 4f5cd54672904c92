"""Evaluation results as files: JSON for programs, CSV for tables, each naming its convention."""

import csv
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

_LOGGER = logging.getLogger(__name__)


def write_results(
    folder: str | Path,
    *,
    task: str,
    dataset_name: str,
    convention: str,
    metrics: Mapping[str, float],
    per_class: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write ``<task>_evaluation.json``, ``<task>_evaluation.csv`` and ``<task>_per_class.csv``.

    Values are percentages; undefined ones (NaN) become null in JSON and stay empty in CSV.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "dataset": dataset_name,
        "task": task,
        "convention": convention,
        "unit": "percent",
        "metrics": {name: _defined(value) for name, value in metrics.items()},
        "per_class": [{k: _defined(v) for k, v in row.items()} for row in per_class],
    }
    write_json(folder / f"{task}_evaluation.json", content)
    rows = [
        {"dataset": dataset_name, "task": task, "metric": name, "value": value}
        | {"convention": convention}
        for name, value in metrics.items()
    ]
    _write_csv(folder / f"{task}_evaluation.csv", rows)
    _write_csv(folder / f"{task}_per_class.csv", per_class)


def write_json(path: Path, content: Any) -> None:
    """Write JSON under a temporary name first, so that no half-written file is ever seen."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    temporary.replace(path)


def log_results(dataset_name: str, task: str, metrics: Mapping[str, float]) -> None:
    """Log the metrics of one task as a one-row table; per-class values are left out."""
    shown = {name: value for name, value in metrics.items() if "-" not in name}
    table = tabulate([shown.values()], headers=list(shown), floatfmt=".3f", tablefmt="pipe")
    _LOGGER.info("%s on %s:\n%s", task, dataset_name, table)


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({k: _defined(v) for k, v in row.items()} for row in rows)
