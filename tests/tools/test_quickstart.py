"""The quickstart's pieces: progress from log lines, its table, results and failures of runs."""

import json
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from tests.golden_cases import REPOSITORY

sys.path.append(str(REPOSITORY / "tools"))

import quickstart
import shapes_protocol


def test_bars_follow_the_log_of_a_run() -> None:
    with tqdm(disable=False, file=sys.stderr) as bar:
        on_line = quickstart.following(quickstart._INFERENCE, bar)
        on_line("[d2.evaluation.evaluator]: Inference done 6/130. Dataloading: 0.1 s/iter")
        assert (bar.n, bar.total) == (6, 130)
        on_line("something else")
        on_line("Inference done 130/130.")
        assert bar.n == 130


def test_the_table_shows_what_fine_tuning_changed() -> None:
    groups, columns = shapes_protocol.GROUPS, shapes_protocol.COLUMNS
    before = {column: dict.fromkeys(groups, 10.0) for column in columns}
    after = {column: dict.fromkeys(groups, 12.5) for column in columns}
    rows = quickstart.comparison(before, after)
    assert len(rows) == len(groups) * len(columns)
    assert rows[0] == ("all", columns[0], 10.0, 12.5, 2.5)


def test_scores_are_read_from_the_results_of_a_run(tmp_path: Path) -> None:
    evaluation = shapes_protocol.EVALUATIONS[0]
    folder = tmp_path / "classify_true_masks" / "inference" / shapes_protocol.DATASET
    folder.mkdir(parents=True)
    metrics = {"mMaskAcc": 30.0, "mMaskAcc(S)": 40.0, "mMaskAcc(U)": 20.0}
    (folder / "results.json").write_text(json.dumps({"results": {"mask_acc": metrics}}))
    scores = shapes_protocol.read_scores(evaluation, tmp_path)
    assert scores == {"mask accuracy": {"all": 30.0, "seen": 40.0, "unseen": 20.0}}


def test_a_failed_run_shows_the_end_of_its_output(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(RuntimeError, match=r"(?s)terminal\.txt.*unrecognized arguments"):
        shapes_protocol.run(["--no-such-option"], tmp_path / "terminal.txt", lines.append)
    assert lines
