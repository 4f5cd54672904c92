"""One table of all evaluation runs: our numbers, and the published ones if there are any.

    python tools/collect_results.py output/ --csv results.csv --markdown results.md
    python tools/collect_results.py --comparison output/<config>/<tag> ...

Each argument is a run directory or a folder above run directories. Evaluations of the same config,
checkpoint, and tag share a row, including those in the per-benchmark directories of eval_all.sh.
The columns are the main metrics of each benchmark, also over seen (S) and unseen (U) classes, and
the means over the domains of MESS. Results that read the ground truth have columns of their own:
"masks given" (ground-truth masks), "classes given" (MASKCLIPPP.TEST.SEGMENTOR_ONLY). With
--comparison there is one line per metric instead.
"""

import argparse
import csv
import fnmatch
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

TABLES = Path(__file__).resolve().parent
# The main metric of each task.
MAIN_METRICS = {
    "sem_seg": "mIoU",
    "sem_seg_majority": "mIoU",
    "panoptic_seg": "PQ",
    "segm": "AP",
    "bbox": "AP",
    "mask_acc": "mMaskAcc",
}
SEEN, UNSEEN = "(S)", "(U)"
AUGMENTED = "_TTA"
MESS = "MESS"
WORDS = " (words)"
# What a result has read of the ground truth: with SEGMENTOR_ONLY by task, else with masks of these.
CLASSES_GIVEN = "classes given, one mask per segment"
MAJORITY = "classes given by majority"
MASKS_GIVEN = "masks given"
GIVEN = (CLASSES_GIVEN, MAJORITY, MASKS_GIVEN)
TRUE_MASKS = ("GTSegmentor", "PanGTSegmentor")
# Datasets with the images and classes of another one, with fewer annotations.
SAME_BENCHMARK = {"openvocab_ade20k_sem_seg_val": "openvocab_ade20k_panoptic_val"}
TUNED, PLAIN = "tuned", "plain CLIP"


@dataclass(frozen=True)
class Benchmark:
    """A line of ``benchmarks.tsv``: the first name is the suffix of tags."""

    name: str
    label: str
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """A line of ``published_results.tsv``; ``config`` is a pattern of config names."""

    model: str  # TUNED or PLAIN
    config: str
    benchmark: str
    task: str
    metric: str
    value: float


@dataclass(frozen=True)
class Evaluation:
    """The content of a ``results.json``, and the run that it belongs to."""

    folder: Path
    config: str
    tag: str
    checkpoint: str
    model: str  # TUNED, PLAIN, or "" for an unpublished kind: tuned, but without alignment
    words: str
    dataset: str
    metrics: Mapping[tuple[str, str], float]  # by (task, metric), percent
    given: str = ""  # what it has read of the ground truth


@dataclass(frozen=True)
class Value:
    """One cell: a metric of a benchmark, or of a dataset that is not part of a benchmark."""

    label: str
    task: str
    metric: str
    ours: float
    published: float | None = None
    words: str = ""  # source of the vocabulary, and the beginning of its hash

    @property
    def column(self) -> str:
        """Column name; says "box" because boxes and masks have the same metrics."""
        return f"{self.label} {'box ' if self.task.startswith('bbox') else ''}{self.metric}"


@dataclass
class Row:
    """All evaluations of one config, checkpoint and tag."""

    config: str
    tag: str
    checkpoint: str
    values: dict[str, Value] = field(default_factory=dict)


class Benchmarks:
    """The tables in the folder of this file."""

    @cached_property
    def all(self) -> list[Benchmark]:
        """The benchmarks, in the order of their table."""
        return [
            Benchmark(names.split(",")[0], label, tuple(datasets.split(",")))
            for names, label, datasets, *_ in _read_table("benchmarks.tsv")
        ]

    @cached_property
    def domains(self) -> dict[str, list[Benchmark]]:
        """The benchmarks of each domain of MESS."""
        by_name = {benchmark.name: benchmark for benchmark in self.all}
        return {
            domain: [by_name[name] for name in names.split(",")]
            for domain, names in _read_table("mess_domains.tsv")
        }

    @cached_property
    def published(self) -> list[Published]:
        """The published numbers."""
        return [
            Published(*names, float(value))
            for *names, value in _read_table("published_results.tsv")
        ]

    def of_dataset(self, dataset: str) -> Benchmark | None:
        """The benchmark that evaluates on a dataset, if there is one."""
        name = SAME_BENCHMARK.get(dataset, dataset)
        return next((b for b in self.all if name in b.datasets), None)

    def published_value(
        self, model: str, config: str, benchmark: Benchmark | None, task: str, metric: str
    ) -> float | None:
        """The published number for a model and config, if there is one."""
        wanted = (model, benchmark.name if benchmark else None, task, metric)
        for entry in self.published:
            found = (entry.model, entry.benchmark, entry.task, entry.metric)
            if found == wanted and fnmatch.fnmatchcase(config, entry.config):
                return entry.value
        return None


def read_evaluations(folders: Iterable[Path]) -> list[Evaluation]:
    """The evaluations in run directories, or in folders above them.

    Raises:
        FileNotFoundError: a folder has no results.
        ValueError: a file is not a result file.
    """
    found: dict[Path, Evaluation] = {}
    for folder in folders:
        files = sorted(folder.rglob("inference*/*/results.json"))
        if not files:
            raise FileNotFoundError(
                f"{folder} has no results (no inference/<dataset>/results.json below it): expected "
                "the output directory of an evaluation, or a folder above such directories"
            )
        found |= {file.resolve(): _read_evaluation(file) for file in files}
    return list(found.values())


def table_rows(evaluations: Sequence[Evaluation], benchmarks: Benchmarks) -> list[Row]:
    """One row per config, checkpoint, and tag.

    Raises ValueError if two evaluations have different numbers for one cell.
    """
    rows: dict[tuple[str, ...], Row] = {}
    for evaluation in evaluations:
        benchmark = benchmarks.of_dataset(evaluation.dataset)
        # Without the suffixes that eval_all.sh and eval_mask_acc.sh add.
        tag = evaluation.tag.removesuffix(f"_{benchmark.name}" if benchmark else "")
        tag = tag.removesuffix("_mask-acc")
        key = (evaluation.config, tag, evaluation.checkpoint)
        row = rows.setdefault(key, Row(*key))
        for value in _main_values(evaluation, benchmark, benchmarks):
            known = row.values.setdefault(value.column, value)
            if str(known.ours) != str(value.ours):  # NaN differs from itself
                raise ValueError(
                    f"{evaluation.folder}: {value.column} is {value.ours}, another evaluation of "
                    f"config {row.config}, tag {row.tag} has {known.ours}: collect them one by one"
                )
    for row in rows.values():
        _add_means(row, benchmarks)
    return list(rows.values())


def comparison(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry per main metric: ours, published, difference, seen, unseen."""
    lines = []
    for row in rows:
        ours = {column: value.ours for column, value in row.values.items()}
        for value in row.values.values():
            if value.metric.endswith((SEEN, UNSEEN)):
                continue
            line: dict[str, Any] = {"run": f"{row.config} {row.tag}"} if len(rows) > 1 else {}
            difference = None if value.published is None else value.ours - value.published
            line |= {"benchmark": value.label, "metric": value.column[len(value.label) + 1 :]}
            line |= {"ours": value.ours, "published": value.published, "difference": difference}
            line |= {"seen": ours.get(value.column + SEEN)}
            line |= {"unseen": ours.get(value.column + UNSEEN), "words": value.words}
            lines.append(line)
    return lines


def wide_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry per row, with all columns of all rows, each followed by published and words."""
    lines: list[dict[str, Any]] = [
        {"config": row.config, "tag": row.tag, "checkpoint": row.checkpoint} for row in rows
    ]
    for column in dict.fromkeys(column for row in rows for column in row.values):
        values = [row.values.get(column) for row in rows]
        known = [value for value in values if value]
        parts = {"": "ours"}
        if any(value.published is not None for value in known):
            parts[" (published)"] = "published"
        if not column.endswith((SEEN, UNSEEN)) and any(value.words for value in known):
            parts[WORDS] = "words"
        for line, value in zip(lines, values, strict=True):
            line |= {column + end: getattr(value, name, None) for end, name in parts.items()}
    return lines


def notes(rows: Sequence[Row], benchmarks: Benchmarks) -> list[str]:
    """The domains of MESS that have no mean because some of their benchmarks are missing."""
    lines = []
    for row in rows:
        present = {value.label for value in row.values.values()}
        for domain, members in benchmarks.domains.items():
            missing = [b.label for b in members if b.label not in present]
            if 0 < len(missing) < len(members):
                lines.append(
                    f"{row.config} {row.tag}: no mean over {MESS} {domain}, because it lacks "
                    + ", ".join(missing)
                )
    return lines


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with full precision."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """A readable table, without empty columns and without those of words."""
    filled = [key for key in lines[0] if any(line[key] not in (None, "") for line in lines)]
    kept = [key for key in filled if not key.endswith(WORDS)]
    body = [[line[key] for key in kept] for line in lines]
    # A tag that looks like a number must not be rounded.
    texts = [i for i, key in enumerate(kept) if any(isinstance(line[key], str) for line in lines)]
    return tabulate(body, headers=kept, tablefmt="github", floatfmt=".2f", disable_numparse=texts)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run directories, or folders above them")
    parser.add_argument("--csv", type=Path, help="write the table here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--comparison", action="store_true", help="one line per metric")
    args = parser.parse_args()
    benchmarks = Benchmarks()
    try:
        rows = table_rows(read_evaluations(args.runs), benchmarks)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    lines = comparison(rows) if args.comparison else wide_table(rows)
    if args.csv:
        write_csv(args.csv, lines)
    text = "\n".join([markdown(lines), *notes(rows, benchmarks)]) + "\n"
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _read_table(name: str) -> Iterator[list[str]]:
    for line in (TABLES / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def _read_evaluation(file: Path) -> Evaluation:
    run = file.parents[2].resolve()
    suffix = AUGMENTED if file.parents[1].name.endswith(AUGMENTED) else ""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        metrics = {
            (task + suffix, name): float("nan") if value is None else float(value)
            for task, values in content["results"].items()
            for name, value in values.items()
        }
        dataset, words = content["dataset"], content.get("test_vocabulary")
        words = f"{words['source']} {words['sha256'][:8]}" if words else ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is not a result file of train_maskclippp.py ({error!r}): expected an object "
            "with dataset and results {task: {metric: percent}}; evaluate again"
        ) from error
    checkpoint, model, given = _model(run)
    names = (run.parent.name, run.name, checkpoint, model)
    return Evaluation(file.parent, *names, words, dataset, metrics, given)


def _model(run: Path) -> tuple[str, str, str]:
    """MODEL.WEIGHTS ("" if the run has no config), ``Evaluation.model`` and ``.given``."""
    file = run / "config.yaml"
    if not file.is_file():
        return "", TUNED, ""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))["MODEL"]
        checkpoint, node = str(config["WEIGHTS"]), config["MASKCLIPPP"]
        has_alignment = node["PSM"]["NAME"] != "DummyPSM"
        given = MASKS_GIVEN if node.get("SEGMENTOR", {}).get("NAME") in TRUE_MASKS else ""
        if node.get("TEST", {}).get("SEGMENTOR_ONLY"):
            given = CLASSES_GIVEN
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(
            f"{file} is not the config of a run ({type(error).__name__}: {problem}): expected what "
            "train_maskclippp.py writes; evaluate again"
        ) from error
    if has_alignment:
        return checkpoint, TUNED, given
    return checkpoint, "" if checkpoint else PLAIN, given


def _main_values(
    evaluation: Evaluation, benchmark: Benchmark | None, benchmarks: Benchmarks
) -> Iterator[Value]:
    """The main metrics; a benchmark of several datasets has a label per dataset."""
    label = evaluation.dataset
    if benchmark is not None and len(benchmark.datasets) == 1:
        label = benchmark.label
    for (task, metric), ours in evaluation.metrics.items():
        main = MAIN_METRICS.get(task.removesuffix(AUGMENTED))
        if main is None or metric not in (main, main + SEEN, main + UNSEEN):
            continue
        given = _given(evaluation, task)
        published = (
            None
            if given
            else benchmarks.published_value(
                evaluation.model, evaluation.config, benchmark, task, metric
            )
        )
        name = label + _label_end(AUGMENTED if task.endswith(AUGMENTED) else "", given)
        yield Value(name, task, metric, ours, published, evaluation.words)


def _label_end(augmented: str, given: str) -> str:
    return f"{augmented.replace('_', ' ')}{given and f' ({given})'}"


def _given(evaluation: Evaluation, task: str) -> str:
    """What a result has read of the ground truth, unless its metric says so."""
    if task.startswith("sem_seg_majority"):
        return MAJORITY
    return "" if task == "mask_acc" else evaluation.given


def _add_means(row: Row, benchmarks: Benchmarks) -> None:
    """Add means over benchmarks of several datasets, MESS's domains, and MESS, where complete."""
    for benchmark in benchmarks.all:
        if len(benchmark.datasets) > 1:
            _add_mean(row, benchmark.label, benchmark.datasets)
    labels = {name: [b.label for b in members] for name, members in benchmarks.domains.items()}
    for domain, members in labels.items():
        _add_mean(row, f"{MESS} {domain}", members)
    _add_mean(row, MESS, [label for members in labels.values() for label in members])


def _add_mean(row: Row, label: str, members: Sequence[str]) -> None:
    """Add the mean of each main metric that all members (labels) have, with equal means."""
    kinds = itertools.product(MAIN_METRICS.items(), ("", AUGMENTED), ("", *GIVEN))
    for (task, metric), augmented, given in kinds:
        end = _label_end(augmented, given)
        task += augmented
        parts = [row.values.get(Value(name + end, task, metric, 0).column) for name in members]
        found = [part.ours for part in parts if part is not None and part.task == task]
        if len(found) == len(members):
            mean = Value(label + end, task, metric, sum(found) / len(found))
            row.values[mean.column] = mean


if __name__ == "__main__":
    main()
