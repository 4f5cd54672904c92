"""What the embedded engine does better than it has to, whichever engine this run uses."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.golden_cases import REPOSITORY

EMBEDDED = REPOSITORY / "maskclippp" / "embedded"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    paths = [str(EMBEDDED), str(REPOSITORY)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.embedded.embedded_checks"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_checks_ran_on_the_embedded_engine(report: dict[str, Any]) -> None:
    assert report["engine"].startswith(str(EMBEDDED))


def test_python_tags_are_not_executed(report: dict[str, Any]) -> None:
    assert not report["python_tag"]["executed"]
    assert "ConstructorError" in report["python_tag"]["error"]
    assert report["python_tag"]["unsafe"].startswith("ValueError: Python tags are never executed")


@pytest.mark.parametrize("check", ["pickled_code", "pickle_file"])
def test_code_in_checkpoints_is_not_executed(report: dict[str, Any], check: str) -> None:
    assert not report[check]["executed"]
    assert report[check]["error"].startswith("ValueError")
    assert "execute code" in report[check]["error"]


def test_the_training_mode_returns_after_an_exception(report: dict[str, Any]) -> None:
    assert report["mode_after_exception"] == {
        "error": "RuntimeError: in the context",
        "training": True,
    }


def test_a_loader_without_mapper_is_an_error(report: dict[str, Any]) -> None:
    assert report["missing_mapper"].startswith("ValueError: this engine has no default mapper")


def test_precise_batch_norm_is_refused_instead_of_ignored(report: dict[str, Any]) -> None:
    assert report["precise_batch_norm"].startswith("ValueError: TEST.PRECISE_BN")


def test_two_cpu_processes_compute_the_gradients_of_one(report: dict[str, Any]) -> None:
    gradients = report["parallel_gradients"]
    assert gradients["two"][0] == pytest.approx(gradients["one"][0])


def test_an_empty_subset_is_refused_instead_of_drawn_from_for_ever(report: dict[str, Any]) -> None:
    assert report["empty_subset"].startswith(
        "ValueError: DATALOADER.RANDOM_SUBSET_RATIO: the fraction 0.04 of 20 records"
    )


def test_repeat_factors_name_the_record_without_annotations(report: dict[str, Any]) -> None:
    error = report["repeat_factors_without_annotations"]
    assert error.startswith("ValueError: DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler")
    assert error.endswith("1 of 2 have none, the first is bare.jpg")


def test_records_without_the_key_annotations_are_no_empty_ones(report: dict[str, Any]) -> None:
    assert report["mixed_records"] == [0, 2]


def test_metrics_stay_readable_after_a_kill(report: dict[str, Any]) -> None:
    lines = report["metrics_after_a_kill"]
    assert lines[1] == '{"a": 2.0, "iter'
    assert json.loads(lines[2]) == {"a": 3.0, "b": None, "c": None, "iteration": 5}
    assert lines[3:] == [""]


def test_every_group_has_the_timeout_of_the_launch(report: dict[str, Any]) -> None:
    assert report["group_timeouts"] == [77, 77]
