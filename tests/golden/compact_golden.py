"""Makes the compact copy of the golden cases by which a lone clone tests itself.

    python -m tests.golden.compact_golden ../shared/golden NEW_FOLDER

What a family of cases loses on the way, and why, is declared in ``compact_golden.yaml``. What
remains is exact: tensors take the smallest type that holds their values, weights that no
remaining output depends on become zero (their names and shapes stay), and files are compressed.
Every case.json tells what was left out. ``tests.golden_cases.GoldenCase`` reads the copy.
"""

import argparse
import copy
import json
import logging
import lzma
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

logger = logging.getLogger(__name__)

RULES = Path(__file__).with_suffix(".yaml")
# Contexts of 1, 2 and 4 bytes: what suits the values of a file is found by trying.
LZMA_CONTEXTS = ({"lc": 3, "lp": 0}, {"lc": 1, "lp": 1}, {"lc": 2, "lp": 2})


@dataclass(frozen=True)
class Rule:
    """What of a family of cases is left out.

    Patterns are those of ``fnmatch`` over ``<file>/<tensor>``, such as ``outputs/*/block1``.

    Attributes:
        why: the reason, written into case.json.
        drop: tensors left out; what case.json describes of them goes too.
        keep: by entry of case.json (``variants``, ``runs``), the names that remain; tensors
            ``outputs/<name>/...`` of the others are left out.
        first: tensors of which only that many images, the first ones, remain.
        rows: by table in the weights, the input that holds the ids of all rows which are read.
        zero: weights that become zero, because no remaining output depends on them.
        replace: entries of case.json that then hold another value, by their path with slashes.
    """

    why: str
    drop: tuple[str, ...] = ()
    keep: dict[str, list[str]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    replace: dict[str, Any] = field(default_factory=dict)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns fits a name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two float32 tensors are equal to the sign of zero."""
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


def narrowed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Store float32 tensors in the smallest type that holds their values exactly.

    Whole numbers of 0..255 become uint8 under ``<name>#integers``, others float16 or float32.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float32 and tensor.numel():
            whole, half = tensor.clamp(0, 255).to(torch.uint8), tensor.half()
            if "#" not in name and same_bits(whole.float(), tensor):
                result[f"{name}#integers"] = whole
                continue
            if same_bits(half.float(), tensor):
                result[name] = half
                continue
        result[name] = tensor.contiguous()
    return result


def used_rows(name: str, table: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """A table as those of its rows that are read; the others will be zero."""
    row_ids = ids.unique()
    return {
        f"{name}#rows": table[row_ids],
        f"{name}#row_ids": row_ids.int(),
        f"{name}#row_count": torch.tensor(len(table), dtype=torch.int32),
    }


def compress(data: bytes) -> bytes:
    """The smallest xz form of ``data`` among several contexts for its values."""
    forms = (
        lzma.compress(
            data,
            format=lzma.FORMAT_XZ,
            check=lzma.CHECK_CRC32,
            filters=[{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, **contexts}],
        )
        for contexts in LZMA_CONTEXTS
    )
    return min(forms, key=len)


def replace_entry(info: dict[str, Any], path: str, value: Any) -> None:
    """Replace an entry of case.json that is named by its path; KeyError when it has none such."""
    *parents, last = path.split("/")
    for parent in parents:
        info = info[parent]
    if last not in info:
        raise KeyError(f"case.json has no entry {path!r} to replace; it has {sorted(info)}")
    info[last] = value


def keep_names(info: dict[str, Any], entry: str, names: list[str]) -> list[str]:
    """Keep the named parts of an entry of case.json (a dict, or a list of dicts with a name).

    Returns:
        The names that are left out.
    """
    found = info[entry]
    present = list(found) if isinstance(found, dict) else [item["name"] for item in found]
    if missing := set(names) - set(present):
        raise KeyError(f"{entry} of case.json lacks {sorted(missing)}; it has {present}")
    if isinstance(found, dict):
        info[entry] = {name: value for name, value in found.items() if name in names}
    else:
        info[entry] = [item for item in found if item["name"] in names]
    return [name for name in present if name not in names]


@dataclass
class Case:
    """A case in memory: what case.json says, and the tensors of its files."""

    name: str
    info: dict[str, Any]
    files: dict[str, dict[str, Tensor]]

    @classmethod
    def load(cls, folder: Path) -> "Case":
        """Read a case directory."""
        files = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
        return cls(folder.name, json.loads((folder / "case.json").read_text()), files)

    def _named(self) -> Iterator[tuple[str, str, str]]:
        for file, tensors in self.files.items():
            for name in list(tensors):
                yield f"{file}/{name}", file, name

    def apply(self, rule: Rule) -> None:
        """Leave out what the rule says, in tensors and in case.json.

        Raises:
            ValueError: a pattern of the rule fits no tensor, or a table is none of the weights.
        """
        unused = [p for p in (*rule.drop, *rule.first, *rule.zero) if not self._fits(p)]
        unused += [name for name in rule.rows if name not in self.files["weights"]]
        if unused:
            raise ValueError(f"{self.name}: {RULES.name} names tensors that do not exist: {unused}")
        patterns = rule.drop
        for entry, names in rule.keep.items():
            gone = keep_names(self.info, entry, names)
            patterns += tuple(f"outputs/{name}/*" for name in gone)
        for path, file, name in self._named():
            if matches(path, patterns):
                del self.files[file][name]
                continue
            if matches(path, rule.zero):
                self.files[file][name] = torch.zeros_like(self.files[file][name])
            for pattern, count in rule.first.items():
                if matches(path, (pattern,)):
                    self.files[file][name] = self.files[file][name][:count]
        for table, ids in rule.rows.items():
            tensor = self.files["weights"].pop(table)
            self.files["weights"] |= used_rows(table, tensor, self.files["inputs"][ids])
        for path, value in rule.replace.items():
            replace_entry(self.info, path, copy.deepcopy(value))
        self.info["reduced"] = {
            "why": rule.why,
            "left_out": sorted(set(patterns)),
            "zero": list(rule.zero),
            "first_images": rule.first,
        }

    def _fits(self, pattern: str) -> bool:
        return any(matches(path, (pattern,)) for path, _, _ in self._named())

    def describe_what_is_left(self) -> None:
        """Make the lists of tensors in case.json those of the tensors that are there."""
        for key in ("input_shapes", "output_shapes"):
            self.info.pop(key, None)
        if "weights" in self.info:
            self.info["weights"].pop("tensors", None)
        for file in ("inputs", "outputs"):
            described = self.info.get(file)
            # Some cases describe every tensor, with its shape; others patterns, in words.
            if isinstance(described, dict) and all(isinstance(v, dict) for v in described.values()):
                self.info[file] = {
                    name: value | {"shape": list(self.files[file][name].shape)}
                    for name, value in described.items()
                    if name in self.files[file]
                }

    def save(self, folder: Path) -> None:
        """Write the case as its compressed files."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.info, indent=1, ensure_ascii=False)
        (folder / "case.json.xz").write_bytes(compress(text.encode()))
        for file, tensors in self.files.items():
            if tensors:
                data = compress(save(narrowed(tensors)))
                (folder / f"{file}.safetensors.xz").write_bytes(data)


def copy_file(source: Path, destination: Path) -> None:
    """Copy a file; TIFF images are compressed without loss."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".tif":
        with Image.open(source) as image:
            image.save(destination, compression="tiff_adobe_deflate")
    else:
        shutil.copyfile(source, destination)


def copy_case(source: Path, destination: Path, rule: Rule | None) -> None:
    """Write the compact form of one case directory."""
    case = Case.load(source)
    if rule is not None:
        case.apply(rule)
    case.describe_what_is_left()
    case.save(destination)
    for file in sorted(source.rglob("*")):
        if file.is_file() and file.name != "case.json" and file.suffix != ".safetensors":
            copy_file(file, destination / file.relative_to(source))


def read_rules(path: Path) -> tuple[dict[str, Rule], dict[str, str], list[str]]:
    """Rules by case, reasons by case that is left out, and paths beside the cases to copy."""
    content = yaml.safe_load(path.read_text())
    rules = {}
    for name, rule in content["reduced"].items():
        patterns = {key: tuple(rule[key]) for key in ("drop", "zero") if key in rule}
        rules[name] = Rule(**rule | patterns)
    return rules, content["left_out"], content["beside_the_cases"]


def compact(source: Path, destination: Path, rules_file: Path = RULES) -> int:
    """Write the compact copy of a directory of golden cases.

    Returns:
        The size of all files in bytes.

    Raises:
        FileNotFoundError: ``source`` holds no cases.
        FileExistsError: ``destination`` exists; a copy is always made anew.
    """
    rules, left_out, beside = read_rules(rules_file)
    folders = sorted(file.parent for file in source.glob("*/case.json"))
    if not folders:
        raise FileNotFoundError(f"{source} holds no golden cases (folders with a case.json)")
    if destination.exists():
        raise FileExistsError(f"{destination} exists: remove it, or name a new folder")
    for folder in folders:
        if folder.name in left_out:
            logger.info("%-30s left out: %s", folder.name, left_out[folder.name])
            continue
        copy_case(folder, destination / folder.name, rules.get(folder.name))
        logger.info("%-30s %9d bytes", folder.name, size_of(destination / folder.name))
    for pattern in beside:
        for path in source.glob(pattern):
            if path.is_file():
                copy_file(path, destination / path.relative_to(source))
    return size_of(destination)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path, help="directory of golden cases")
    parser.add_argument("destination", type=Path, help="folder to be made")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    total = compact(arguments.source, arguments.destination)
    logger.info("%d bytes in all", total)


if __name__ == "__main__":
    main()
