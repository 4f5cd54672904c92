"""Finds golden cases and loads their tensors.

The directory is ``$MASKCLIPPP_GOLDEN``, else ``../shared/golden`` beside the repository, else the
compact copy in ``tests/golden/data``, made by ``tests/golden/compact_golden.py``. Everything
(sizes, names, tolerances) comes from the case.
"""

import json
import lzma
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

REPOSITORY = Path(__file__).resolve().parents[1]
COMPACT_COPY = REPOSITORY / "tests" / "golden" / "data"


def golden_root() -> Path:
    """The directory that holds the golden cases."""
    if "MASKCLIPPP_GOLDEN" in os.environ:
        root = Path(os.environ["MASKCLIPPP_GOLDEN"]).expanduser().resolve()
        if not root.is_dir():
            raise FileNotFoundError(f"MASKCLIPPP_GOLDEN={root} is not a directory")
        return root
    shared = REPOSITORY.parent / "shared" / "golden"
    return shared if shared.is_dir() else COMPACT_COPY


def read_bytes(path: Path) -> bytes:
    """A file, or its compressed form: a case directory given from outside holds no such forms."""
    if path.exists():
        return path.read_bytes()
    return lzma.decompress(path.with_name(f"{path.name}.xz").read_bytes())


def table_of_rows(rows: torch.Tensor, row_ids: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A table of which only some rows are stored; all others are zero."""
    table = torch.zeros(*shape, dtype=rows.dtype)
    table[row_ids.long()] = rows
    return table


def expand(stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as they were before the compact copy was made (see ``compact_golden.py``).

    ``<name>#integers`` holds whole numbers of a float32 tensor; ``<name>#rows``, ``#row_ids`` and
    ``#row_count`` a table. Where the number of rows is not told, rows stay as they are.
    """
    tensors = {}
    for key, value in stored.items():
        name, _, part = key.partition("#")
        if part == "integers":
            tensors[name] = value.float()
        elif not part or f"{name}#row_count" not in stored:
            tensors[key] = value.float() if value.is_floating_point() else value
        elif part == "rows":
            shape = (int(stored[f"{name}#row_count"]), *value.shape[1:])
            tensors[name] = table_of_rows(value.float(), stored[f"{name}#row_ids"], shape)
    return tensors


@dataclass(frozen=True)
class GoldenCase:
    """One case directory: ``info`` is its case.json; tensors are loaded as float32 on request."""

    path: Path
    info: dict[str, Any]

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Tensors of ``<name>.safetensors`` (weights, inputs or outputs); half becomes float32."""
        return expand(load(read_bytes(self.path / f"{name}.safetensors")))

    @property
    def tolerance(self) -> dict[str, float]:
        """``rtol`` and ``atol`` of ``assert_close``."""
        return {key: self.info["tolerance"][key] for key in ("rtol", "atol")}

    def outputs_of(self, variant: str) -> dict[str, torch.Tensor]:
        """Those outputs whose names start with ``<variant>/``, without that."""
        prefix = f"{variant}/"
        outputs = self.tensors("outputs").items()
        return {k.removeprefix(prefix): value for k, value in outputs if k.startswith(prefix)}

    def __str__(self) -> str:
        return self.path.name


def indexed(tensors: Mapping[str, torch.Tensor], prefix: str) -> list[torch.Tensor]:
    """Tensors named prefix0, prefix1, ..."""
    count = sum(key.startswith(prefix) for key in tensors)
    return [tensors[f"{prefix}{index}"] for index in range(count)]


def mask_threshold(case: GoldenCase, variant: str) -> float | None:
    """DOWN_MASK_THRESH of a case, or of its variant ``<mode>_<resize>_thresh<value>``."""
    _, _, value = variant.partition("_thresh")
    configured: float | None = case.info["config"]["DOWN_MASK_THRESH"]
    return float(value) if value else configured


def cases_in(root: Path, prefixes: tuple[str, ...]) -> list[GoldenCase]:
    """The cases of a directory whose folder name starts with one of ``prefixes``."""
    return [
        GoldenCase(file.parent, json.loads(read_bytes(file.with_name("case.json"))))
        for file in sorted(root.glob("*/case.json*"))
        if file.parent.name.startswith(prefixes)
    ]


def cases(*prefixes: str) -> list[GoldenCase]:
    """All cases whose folder name starts with one of ``prefixes``; an error when there is none."""
    # A lone case directory may hold only some families: the compact copy serves the others.
    found = cases_in(golden_root(), prefixes) or cases_in(COMPACT_COPY, prefixes)
    if not found:
        raise FileNotFoundError(f"no golden case {prefixes} in {golden_root()} or {COMPACT_COPY}")
    return found
