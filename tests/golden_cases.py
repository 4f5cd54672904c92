"""Finds golden cases and loads their tensors.

The directory is ``$MASKCLIPPP_GOLDEN``, else ``../shared/golden`` beside the repository, else the
compact copy in ``tests/golden/data``. Everything (sizes, names, tolerances) comes from the case.
"""

import gzip
import json
import os
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


@dataclass(frozen=True)
class GoldenCase:
    """One case directory: ``info`` is its case.json; tensors are loaded as float32 on request."""

    path: Path
    info: dict[str, Any]

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Tensors of ``<name>.safetensors`` (weights, inputs or outputs); half becomes float32."""
        path = self.path / f"{name}.safetensors"
        # The compact copy is compressed; a case directory given from outside is not.
        if path.exists():
            data = path.read_bytes()
        else:
            data = gzip.decompress(path.with_suffix(".safetensors.gz").read_bytes())
        tensors = load(data)
        return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}

    def __str__(self) -> str:
        return self.path.name


def cases(*prefixes: str) -> list[GoldenCase]:
    """All cases whose folder name starts with one of ``prefixes``; an error when there is none."""
    found = [
        GoldenCase(file.parent, json.loads(file.read_text()))
        for file in sorted(golden_root().glob("*/case.json"))
        if file.parent.name.startswith(prefixes)
    ]
    if not found:
        # A lone case directory may hold only some families: the compact copy serves the others.
        found = [
            GoldenCase(file.parent, json.loads(file.read_text()))
            for file in sorted(COMPACT_COPY.glob("*/case.json"))
            if file.parent.name.startswith(prefixes)
        ]
    if not found:
        raise FileNotFoundError(f"no golden case {prefixes} in {golden_root()} or {COMPACT_COPY}")
    return found
