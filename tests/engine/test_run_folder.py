"""One folder holds one run, its own results, and says whose they are."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from maskclippp.config.keys import get_cfg
from maskclippp.engine.run_folder import (
    CONFIG_NAME,
    PREVIOUS_RESULTS_NAME,
    check_writable,
    forget_later_metrics,
    holds_run,
    replace_results,
    report_changed_settings,
    write_config,
)
from maskclippp.engine.setup import _default_tag, means_initial_weights
from maskclippp.errors import INPUT_ERROR_STATUS, InputError
from tests.engine.processes import run_in_processes
from tests.engine.test_train_shapes import CONFIG, RESULTS, _main, run_main
from tests.engine.test_train_shapes import cache as cache
from tests.engine.toy import toy_config

SHORT = ("SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0")
RUN = Path("output", "tiny", "run")
INITIAL = {"checkpoint": None, "origin": "initial weights"}


def said(folder: Path) -> str:
    return (folder / "output.txt").read_text()


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a short run."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_main(cache, folder, options=SHORT) == [0], said(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run, without its log."""
    files = (path for path in folder.rglob("*") if path.is_file() and "log" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_second_training_is_refused_and_changes_nothing(cache: Path, trained: Path) -> None:
    before = contents(trained / RUN)
    assert run_main(cache, trained, options=SHORT) == [INPUT_ERROR_STATUS]
    assert "output/tiny/run already holds an earlier run" in said(trained)
    assert contents(trained / RUN) == before


def test_evaluation_alone_takes_the_checkpoint_of_the_run(cache: Path, trained: Path) -> None:
    expected = json.loads((trained / RUN / RESULTS).read_text())
    before = contents(trained / RUN)
    assert run_main(cache, trained, "--eval-only") == [0], said(trained)
    found = json.loads((trained / RUN / RESULTS).read_text())
    assert found == expected
    digest = sha256((trained / RUN / "model_final.pth").read_bytes()).hexdigest()
    assert found["weights"]["sha256"] == digest
    assert contents(trained / RUN)[CONFIG_NAME] == before[CONFIG_NAME]


def test_results_of_other_weights_replace_a_runs_only_knowingly(cache: Path, trained: Path) -> None:
    before = (trained / RUN / RESULTS).read_bytes()
    initial = ("MODEL.WEIGHTS", "")
    assert run_main(cache, trained, "--eval-only", options=initial) == [INPUT_ERROR_STATUS]
    assert "holds the results of other weights" in said(trained)
    assert (trained / RUN / RESULTS).read_bytes() == before
    assert run_main(cache, trained, "--eval-only", "--overwrite", options=initial) == [0]
    assert (trained / RUN / RESULTS).with_name(PREVIOUS_RESULTS_NAME).read_bytes() == before
    assert json.loads((trained / RUN / RESULTS).read_text())["weights"] == INITIAL


OF_A_FILE = {"checkpoint": "a.pth", "sha256": "a"}


@pytest.mark.parametrize(
    "found",
    [
        {"weights": {"checkpoint": None, "iteration": 9}},
        {"weights": OF_A_FILE},
        {"results": {}},  # of an older version
        [],
    ],
)
def test_results_are_set_aside_all_or_none(found: Any, tmp_path: Path) -> None:
    files = [tmp_path / "first" / "results.json", tmp_path / "second" / "results.json"]
    for file, content in zip(files, ({"weights": INITIAL}, found), strict=True):
        file.parent.mkdir()
        file.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"second/results\.json holds the results of other weights"
    ):
        replace_results(files, INITIAL, overwrite=False)
    assert all(file.is_file() for file in files)
    replace_results(files, INITIAL, overwrite=True)
    assert not any(file.is_file() for file in files)


def test_weights_that_nothing_has_trained_are_named_as_such(cache: Path, tmp_path: Path) -> None:
    assert run_main(cache, tmp_path, "--eval-only") == [0]
    assert "NOT TRAINED: MODEL.WEIGHTS is empty" in said(tmp_path)
    assert json.loads((tmp_path / RUN / RESULTS).read_text())["weights"] == INITIAL


def test_a_training_without_a_checkpoint_is_not_evaluated(cache: Path, tmp_path: Path) -> None:
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / RUN / "metrics.json").write_text("{}\n")
    assert run_main(cache, tmp_path, "--eval-only") == [INPUT_ERROR_STATUS]
    assert "there is no checkpoint to evaluate: MODEL.WEIGHTS is empty" in said(tmp_path)


def test_overwriting_leaves_nothing_of_the_earlier_run(cache: Path, tmp_path: Path) -> None:
    options = (*SHORT, "DATASETS.TEST", "()")
    assert run_main(cache, tmp_path, options=(*options, "SOLVER.CHECKPOINT_PERIOD", "1")) == [0]
    (tmp_path / RUN / "notes.txt").write_text("of the user")
    assert run_main(cache, tmp_path, "--overwrite", options=options) == [0]
    assert {path.name for path in (tmp_path / RUN).glob("*.*")} >= {"notes.txt", CONFIG_NAME}
    assert [path.name for path in (tmp_path / RUN).glob("model_*")] == ["model_final.pth"]
    assert len((tmp_path / RUN / "metrics.json").read_text().splitlines()) == 1


def test_the_terminal_gets_a_summary_and_the_file_the_config(cache: Path, trained: Path) -> None:
    log, terminal = (trained / RUN / "log.txt").read_text(), said(trained)
    assert "SOLVER:\n" in log
    assert "SOLVER:\n" not in terminal
    for text in ("psm ", "of them trained", "train data", "words ", "device ", "engine "):
        assert text in terminal.partition("Summary:")[2].partition("Starting training")[0]
    assert "\r" not in terminal
    assert f"files: {RUN / RESULTS.parent}" in terminal


def test_settings_that_changed_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / CONFIG_NAME).write_text(toy_config(tmp_path).dump())
    report_changed_settings(toy_config(tmp_path))
    moved = toy_config(tmp_path / "moved")
    (tmp_path / CONFIG_NAME).rename(tmp_path / "moved" / CONFIG_NAME)
    report_changed_settings(moved)
    assert caplog.text == ""
    (tmp_path / "moved" / CONFIG_NAME).rename(tmp_path / CONFIG_NAME)
    report_changed_settings(toy_config(tmp_path, "SOLVER.BASE_LR", 0.5, "SEED", 9))
    assert "SOLVER.BASE_LR was 0.01 and is now 0.5: used" in caplog.text
    assert "SEED was 7 and is now 9: the run keeps its own" in caplog.text
    with pytest.raises(InputError, match=r"SOLVER.OPTIMIZER: .* trained with ADAMW, not with SGD"):
        report_changed_settings(toy_config(tmp_path, "SOLVER.OPTIMIZER", "SGD"))


LINES = [
    '{"iteration": 19, "total_loss": 1}\n',
    '{"iteration": 39, "total_loss": 1}\n',
    '{"iteration": 40, "sem_seg/mIoU": 1}\n',
    '{"iteration": 59, "total_loss": 1}\n',
    '{"iteration": 60, "total',
]


@pytest.mark.parametrize(("start", "kept"), [(0, 0), (19, 0), (20, 1), (40, 3), (60, 4), (70, 4)])
def test_metrics_behind_the_checkpoint_are_forgotten(tmp_path: Path, start: int, kept: int) -> None:
    (tmp_path / "metrics.json").write_text("".join(LINES))
    forget_later_metrics(tmp_path, start, 100)
    assert (tmp_path / "metrics.json").read_text() == "".join(LINES[:kept])


def test_the_evaluation_after_the_last_step_is_not_there_twice(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("".join(LINES[:3]))
    forget_later_metrics(tmp_path, 40, 40)
    assert (tmp_path / "metrics.json").read_text() == "".join(LINES[:2])


def test_a_last_line_without_its_end_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(LINES[0] + LINES[1].rstrip())
    forget_later_metrics(tmp_path, 70, 100)
    assert (tmp_path / "metrics.json").read_text() == LINES[0]


def test_a_folder_of_results_that_cannot_be_written_is_told_before_the_work(
    cache: Path, trained: Path
) -> None:
    place = trained / "output" / "tiny" / "run" / "inference_TTA"
    place.touch()
    try:
        options = ("TEST.AUG.ENABLED", "True", "MODEL.MASKCLIPPP.TEST.MASK_ACC", "False")
        codes = run_main(cache, trained, "--eval-only", "--overwrite", options=options)
    finally:
        place.unlink()
    assert codes == [INPUT_ERROR_STATUS]
    assert "inference_TTA/shapes_val cannot be written (Not a directory)" in said(trained)


def test_folders_of_results_are_created_and_nothing_is_left_in_them(tmp_path: Path) -> None:
    check_writable([tmp_path / "a" / "b"])
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file cannot be written \(File exists\)"):
        check_writable([tmp_path / "file"])


def test_results_that_cannot_be_read_are_of_unknown_weights(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(b"\xff{")
    with pytest.raises(InputError, match=r"other weights \(unknown ones\)"):
        replace_results([tmp_path / "results.json"], INITIAL, overwrite=False)


def test_results_of_other_datasets_stand_beside_their_configuration_or_not_at_all(
    tmp_path: Path,
) -> None:
    """Those of the datasets that are evaluated now are set aside in any case."""
    write_config(toy_config(tmp_path), eval_only=True)
    results = tmp_path / "inference" / "other" / "results.json"
    results.parent.mkdir(parents=True)
    results.write_text("{}")
    write_config(toy_config(tmp_path), eval_only=True)
    assert results.is_file()
    write_config(toy_config(tmp_path, "SEED", 8), eval_only=True)
    assert [file.name for file in results.parent.iterdir()] == [PREVIOUS_RESULTS_NAME]


def _train_with_own_tag(cache: Path, folder: Path, *, rank: int, world_size: int) -> None:
    command = ["--config-file", "tiny.yaml", "--tag", f"time_{rank}", "--num-gpus", "2"]
    command += ["SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()"]
    _main(cache, folder, command, None, "rendezvous", rank=rank, world_size=world_size)


def test_machines_whose_clocks_differ_write_one_folder(cache: Path, tmp_path: Path) -> None:
    """By default the tag is the time of the start, as each machine knows it."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    codes = run_in_processes(_train_with_own_tag, cache, tmp_path, world_size=2)
    assert codes == [0, 0], said(tmp_path)
    assert [path.name for path in (tmp_path / "output" / "tiny").iterdir()] == ["time_0"]


def test_a_run_that_has_logged_nothing_is_no_run(tmp_path: Path) -> None:
    """It was stopped before its first step: the same command may start again."""
    (tmp_path / "metrics.json").touch()
    assert not holds_run(tmp_path)
    (tmp_path / "metrics.json").write_text("{}\n")
    assert holds_run(tmp_path)


def test_without_a_tag_the_newest_run_is_continued(tmp_path: Path) -> None:
    """By its last checkpoint, or by what an evaluation has left unfinished."""
    marks = ("b/last_checkpoint", "a/last_checkpoint", "c/inference/x/progress_0.journal")
    for age, mark in enumerate(marks):
        (tmp_path / mark).parent.mkdir(parents=True)
        (tmp_path / mark).touch()
        os.utime(tmp_path / mark, (1e9 + age, 1e9 + age))
    assert _default_tag(tmp_path, newest=True, unfinished=False) == "a"
    assert _default_tag(tmp_path, newest=True, unfinished=True) == "c"
    assert _default_tag(tmp_path, newest=False, unfinished=False) not in "abc"


@pytest.mark.parametrize(
    ("psm", "tuned", "expected"),
    [
        ("DummyPSM", "none", True),
        ("DummyPSM", "all", False),
        ("LinearPSM", "none", False),
        ("LinearPSM", "all", False),
    ],
)
def test_only_a_model_without_trained_parts_means_its_initial_weights(
    psm: str, tuned: str, expected: bool
) -> None:
    cfg = get_cfg()
    cfg.MODEL.MASKCLIPPP.PSM.NAME = psm
    for name in ("VISUAL_ENCODER", "TEXT_ENCODER"):
        cfg.MODEL.MASKCLIPPP[name].FINETUNE_TYPE = "none"
    cfg.MODEL.MASKCLIPPP.TEXT_ENCODER.FINETUNE_TYPE = tuned
    assert means_initial_weights(cfg) == expected
    cfg.MODEL.MASKCLIPPP.TEST.SEGMENTOR_ONLY = True
    assert means_initial_weights(cfg)
