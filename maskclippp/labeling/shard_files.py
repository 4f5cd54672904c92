"""The file of a shard: rows as JSON lines or as a Parquet table, whole or not there at all."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskclippp.errors import MissingPackageError
from maskclippp.files.atomic import atomic_write
from maskclippp.labeling.labeler import Row

FORMATS = ("jsonl", "parquet")


def check_format(file_format: str) -> None:
    """Raise a MissingPackageError if files of the format cannot be written here."""
    if file_format == "parquet":
        _pyarrow()


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows to a file whose ending is the format."""
    if path.suffix == ".parquet":
        content = _parquet(rows)
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with atomic_write(path) as file:
        file.write(content)


def _parquet(rows: Sequence[Row]) -> bytes:
    pa = _pyarrow()
    from pyarrow import parquet

    code = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    segment = pa.struct(
        [
            ("image_id", pa.string()),
            ("category_id", pa.int32()),
            ("category_name", pa.string()),
            ("segmentation", code),
            ("bbox", pa.list_(pa.float64())),
            ("area", pa.int64()),
            ("score", pa.float64()),
        ]
    )
    types = {
        "image": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "segments": pa.list_(segment),
        "error": pa.string(),
        "index_png": pa.string(),
    }
    schema = pa.schema([(name, types[name]) for name in rows[0]])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    return buffer.getvalue()


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingPackageError(
            "--format parquet needs the package pyarrow: pip install pyarrow, or take jsonl"
        ) from error
    return pyarrow
