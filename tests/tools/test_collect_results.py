"""Tables over evaluation runs: rows, columns, published numbers, means of domains."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from detectron2.data import DatasetCatalog

from tests.golden_cases import REPOSITORY
from tools import collect_results
from tools.collect_results import Benchmarks, comparison, markdown, read_evaluations, table_rows

CONFIG = "maskclippp_coco-stuff_clip-convnext-base_maft-b_ens"
ADE = "openvocab_ade20k_panoptic_val"
ADE_FULL = "openvocab_ade20k_full_sem_seg_val"
MEDICAL = "MESS Medical Sciences mMaskAcc"


def make_run(
    root: Path,
    tag: str,
    results: dict[str, Any],
    *,
    config: str = CONFIG,
    folder: str = "inference",
    weights: str = "model.pth",
    alignment: str = "LinearPSM",
    **extra: Any,
) -> Path:
    """A run directory as train_maskclippp.py --eval-only leaves it; ``results`` by dataset."""
    run = root / config / tag
    for dataset, metrics in results.items():
        (run / folder / dataset).mkdir(parents=True, exist_ok=True)
        content = {"dataset": dataset, "results": metrics, **extra}
        (run / folder / dataset / "results.json").write_text(json.dumps(content))
    run_config = {"MODEL": {"WEIGHTS": weights, "MASKCLIPPP": {"PSM": {"NAME": alignment}}}}
    (run / "config.yaml").write_text(yaml.safe_dump(run_config))
    return run


def rows_of(root: Path) -> list[collect_results.Row]:
    return table_rows(read_evaluations([root]), Benchmarks())


def test_runs_of_one_tag_share_a_row(tmp_path: Path) -> None:
    make_run(tmp_path, "first_ade150", {ADE: {"sem_seg": {"mIoU": 35.0}}})
    make_run(tmp_path, "first_ade847", {ADE_FULL: {"sem_seg": {"mIoU": 14.0}}})
    make_run(tmp_path, "first_mask-acc_ade150", {ADE: {"mask_acc": {"mMaskAcc": 60.0}}})
    make_run(tmp_path, "first_without-psm_ade150", {ADE: {"sem_seg": {"mIoU": 20.0}}})
    rows = {row.tag: row for row in rows_of(tmp_path)}
    assert set(rows) == {"first", "first_without-psm"}
    assert set(rows["first"].values) == {"A-150 mIoU", "A-847 mIoU", "A-150 mMaskAcc"}
    assert rows["first"].checkpoint == "model.pth"


def test_other_checkpoints_have_rows_of_their_own(tmp_path: Path) -> None:
    make_run(tmp_path, "a_ade150", {ADE: {"sem_seg": {"mIoU": 35.0}}}, weights="one.pth")
    make_run(tmp_path, "a_ade847", {ADE_FULL: {"sem_seg": {"mIoU": 14.0}}}, weights="two.pth")
    assert {row.checkpoint for row in rows_of(tmp_path)} == {"one.pth", "two.pth"}


def test_words_stand_beside_the_numbers_in_csv_and_comparison(tmp_path: Path) -> None:
    words = {"source": "openseg/ade150.txt", "sha256": "0123456789abcdef"}
    metrics = {ADE: {"sem_seg": {"mIoU": 35.0, "mIoU(S)": 40.0}}}
    make_run(tmp_path, "a_ade150", metrics, test_vocabulary=words)
    rows = rows_of(tmp_path)
    (line,) = comparison(rows)
    assert line["words"] == "openseg/ade150.txt 01234567"
    (line,) = collect_results.wide_table(rows)
    assert line["A-150 mIoU (words)"] == "openseg/ade150.txt 01234567"
    assert "A-150 mIoU(S) (words)" not in line
    assert "openseg" not in markdown([line])


def test_published_numbers_stand_beside_ours(tmp_path: Path) -> None:
    metrics = {"sem_seg": {"mIoU": 35.0, "mIoU(S)": 40.0, "mIoU(U)": 30.0, "pACC": 70.0}}
    make_run(tmp_path, "a_ade150", {ADE: metrics})
    (line,) = comparison(rows_of(tmp_path))
    assert line == {
        "benchmark": "A-150",
        "metric": "mIoU",
        "ours": 35.0,
        "published": 35.4,
        "difference": pytest.approx(-0.4),
        "seen": 40.0,
        "unseen": 30.0,
        "words": "",
    }


@pytest.mark.parametrize("config", ["own", CONFIG.removesuffix("_ens")])
def test_other_configs_have_no_published_numbers(tmp_path: Path, config: str) -> None:
    make_run(tmp_path, "a_ade150", {ADE: {"sem_seg": {"mIoU": 35.0}}}, config=config)
    (line,) = comparison(rows_of(tmp_path))
    assert line["published"] is None


@pytest.mark.parametrize(
    ("alignment", "weights", "published"),
    [
        ("LinearPSM", "model.pth", 67.0),
        ("DummyPSM", "", 52.7),  # plain CLIP
        ("DummyPSM", "model.pth", None),
    ],
)
def test_runs_without_alignment_are_not_compared_with_the_tuned_model(
    tmp_path: Path, alignment: str, weights: str, published: float | None
) -> None:
    make_run(
        tmp_path,
        "a_mask-acc_ade150",
        mask_accuracy(ADE, 50.0),
        config="maskclippp_coco-stuff_eva-clip-vit-l-14-336_wtext",
        alignment=alignment,
        weights=weights,
    )
    (line,) = comparison(rows_of(tmp_path))
    assert line["published"] == published


def test_tags_that_look_like_numbers_stay_as_they_are(tmp_path: Path) -> None:
    make_run(tmp_path, "0.0015", {ADE: {"sem_seg": {"mIoU": 36.0}}})
    assert "| 0.0015 |" in markdown(collect_results.wide_table(rows_of(tmp_path)))


def test_augmented_results_are_no_match_for_published_ones(tmp_path: Path) -> None:
    metrics = {ADE: {"sem_seg": {"mIoU": 36.0}}}
    make_run(tmp_path, "a_ade150", metrics, folder="inference_TTA")
    (line,) = comparison(rows_of(tmp_path))
    assert (line["benchmark"], line["published"]) == ("A-150 TTA", None)


def mask_accuracy(dataset: str, value: float) -> dict[str, Any]:
    return {dataset: {"mask_acc": {"mMaskAcc": value}}}


def make_medical_domain(root: Path) -> None:
    """Kvasir 10, CHASE 20, CryoNuSeg 30, and PAXRay's four parts 30, 40, 50, 60 (mean 45)."""
    for number, name in enumerate(("kvasir_instrument", "chase_db1", "cryonuseg"), start=1):
        results = mask_accuracy(f"{name}_sem_seg_test", 10.0 * number)
        make_run(root, f"a_mask-acc_mess_{name}", results)
    parts: dict[str, Any] = {}
    for number, part in enumerate(("lungs", "bones", "mediastinum", "diaphragm"), start=3):
        parts |= mask_accuracy(f"paxray_sem_seg_test_{part}", 10.0 * number)
    make_run(root, "a_mask-acc_mess_paxray", parts)


def test_a_complete_domain_has_a_mean_over_its_benchmarks(tmp_path: Path) -> None:
    make_medical_domain(tmp_path)
    (row,) = rows_of(tmp_path)
    assert row.values["PAXRay-4 mMaskAcc"].ours == 45.0
    assert row.values[MEDICAL].ours == pytest.approx((10 + 20 + 30 + 45) / 4)
    assert "MESS mMaskAcc" not in row.values


def test_an_incomplete_domain_has_no_mean_and_says_so(tmp_path: Path) -> None:
    make_medical_domain(tmp_path)
    lungs = tmp_path / CONFIG / "a_mask-acc_mess_paxray/inference/paxray_sem_seg_test_lungs"
    (lungs / "results.json").unlink()
    (row,) = rows_of(tmp_path)
    assert MEDICAL not in row.values
    (note,) = collect_results.notes([row], Benchmarks())
    assert note.endswith("no mean over MESS Medical Sciences, because it lacks PAXRay-4")


def test_mess_has_22_benchmarks_in_five_domains() -> None:
    benchmarks = Benchmarks()
    members = [b.name for domain in benchmarks.domains.values() for b in domain]
    assert len(benchmarks.domains) == 5
    assert len(members) == 22
    assert set(members) == {b.name for b in benchmarks.all if b.name.startswith("mess_")}


def test_every_dataset_of_a_benchmark_is_registered() -> None:
    """Those of MESS come with its package; a config names its own."""
    datasets = {d for b in Benchmarks().all if not b.name.startswith("mess_") for d in b.datasets}
    assert datasets - {"-"} <= set(DatasetCatalog.list())


def test_every_published_number_belongs_to_a_config_and_a_benchmark() -> None:
    benchmarks = Benchmarks()
    stems = [path.stem for path in (REPOSITORY / "configs").rglob("*.yaml")]
    by_name = {benchmark.name: benchmark for benchmark in benchmarks.all}
    for published in benchmarks.published:
        assert published.model in (collect_results.TUNED, collect_results.PLAIN)
        benchmark = by_name[published.benchmark]
        values = [
            benchmarks.published_value(
                published.model, stem, benchmark, published.task, published.metric
            )
            for stem in stems
        ]
        assert published.value in values


def test_undefined_numbers_stay_undefined(tmp_path: Path) -> None:
    make_run(tmp_path, "a", {"own_dataset": {"segm": {"AP": None}}})
    assert "nan" in markdown(comparison(rows_of(tmp_path)))


def test_different_numbers_for_one_cell_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "a", {ADE: {"sem_seg": {"mIoU": 35.0}}})
    make_run(tmp_path, "a_ade150", {ADE: {"sem_seg": {"mIoU": 36.0}}})
    with pytest.raises(ValueError, match=r"A-150 mIoU is 36\.0, another.* 35\.0"):
        rows_of(tmp_path)


def collect(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / "tools" / "collect_results.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tables_are_printed_and_written(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "a_ade150", {ADE: {"sem_seg": {"mIoU": 35.125}}})
    make_run(tmp_path / "runs", "b_ade847", {ADE_FULL: {"sem_seg": {"mIoU": 14.0}}})
    files = (tmp_path / "t.csv", tmp_path / "t.md")
    done = collect(tmp_path / "runs", "--csv", files[0], "--markdown", files[1])
    assert done.returncode == 0, done.stderr
    assert files[1].read_text() == done.stdout
    with files[0].open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["A-150 mIoU"], first["A-150 mIoU (published)"]) == ("35.125", "35.4")
    assert (first["A-847 mIoU"], second["A-847 mIoU"]) == ("", "14.0")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no results"), ("{", "is not a result file"), ("[]", "is not a result file")],
)
def test_bad_input_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        make_run(tmp_path, "a", {ADE: {}})
        next(tmp_path.rglob("results.json")).write_text(content)
    done = collect(tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("node", "results", "columns"),
    [
        ({}, {"sem_seg": {"mIoU": 30.0}}, {"A-150 mIoU"}),
        (
            {"SEGMENTOR": {"NAME": "GTSegmentor"}},
            {"sem_seg": {"mIoU": 60.0}, "mask_acc": {"mMaskAcc": 50.0}},
            {"A-150 (masks given) mIoU", "A-150 mMaskAcc"},
        ),
        (
            {"TEST": {"SEGMENTOR_ONLY": True}},
            {"sem_seg": {"mIoU": 20.0}, "sem_seg_majority": {"mIoU": 60.0}},
            {
                "A-150 (classes given, one mask per segment) mIoU",
                "A-150 (classes given by majority) mIoU",
            },
        ),
    ],
)
def test_results_that_read_the_ground_truth_have_their_own_columns(
    node: dict[str, Any], results: dict[str, Any], columns: set[str], tmp_path: Path
) -> None:
    run = make_run(tmp_path, "first_ade150", {ADE: results})
    config = {"MODEL": {"WEIGHTS": "", "MASKCLIPPP": {"PSM": {"NAME": "LinearPSM"}, **node}}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (row,) = rows_of(tmp_path)
    assert set(row.values) == columns
    read = [value.published for name, value in row.values.items() if "given" in name]
    assert read == [None] * len(read)


@pytest.mark.parametrize("text", ["MODEL: {WEIGHTS: [", "5", "", "MODEL: {}", "\x00", "MODEL: 3"])
def test_a_broken_config_of_a_run_is_named_in_one_line(text: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, "first_ade150", {ADE: {"sem_seg": {"mIoU": 30.0}}})
    (run / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml is not the config of a run") as caught:
        rows_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_ade20k_with_semantic_annotation_alone_is_the_same_benchmark(tmp_path: Path) -> None:
    make_run(
        tmp_path, "first_ade150", {"openvocab_ade20k_sem_seg_val": {"sem_seg": {"mIoU": 35.0}}}
    )
    (row,) = rows_of(tmp_path)
    assert row.tag == "first"
    assert row.values["A-150 mIoU"].published == 35.4


def test_results_that_read_the_ground_truth_have_means_of_their_own(tmp_path: Path) -> None:
    names = ("lungs", "bones", "mediastinum", "diaphragm")
    results = {
        f"paxray_sem_seg_test_{name}": {"sem_seg": {"mIoU": 10.0 * number}}
        for number, name in enumerate(names)
    }
    run = make_run(tmp_path, "a_mess_paxray", results)
    node = {"PSM": {"NAME": "LinearPSM"}, "SEGMENTOR": {"NAME": "GTSegmentor"}}
    config = {"MODEL": {"WEIGHTS": "", "MASKCLIPPP": node}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (row,) = rows_of(tmp_path)
    assert row.values["PAXRay-4 (masks given) mIoU"].ours == 15.0
    assert "PAXRay-4 mIoU" not in row.values
