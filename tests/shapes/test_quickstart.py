"""The quickstart's pieces: progress from log lines, its table, results and failures of runs."""

import json
import re
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from shapes import protocol, quickstart, report
from shapes.report import View


def test_bars_follow_the_log_of_a_run() -> None:
    with tqdm(disable=False, file=sys.stderr) as bar:
        on_line = quickstart.following(quickstart._INFERENCE, bar)
        on_line("[d2.evaluation.evaluator]: Inference done 6/130. Dataloading: 0.1 s/iter")
        assert (bar.n, bar.total) == (6, 130)
        on_line("something else")
        on_line("Inference done 130/130.")
        assert bar.n == 130


def scores(value: float) -> protocol.Scores:
    return {c: dict.fromkeys(protocol.GROUPS, value) for c in protocol.COLUMNS}


def scores_of_masks(superpixels: float, trained_generator: float) -> protocol.Scores:
    values = superpixels, trained_generator
    return {
        column: {"all": value}
        for evaluation, value in zip(protocol.MASK_EVALUATIONS, values, strict=True)
        for column in evaluation.metrics
    }


def test_a_table_shows_what_fine_tuning_changed() -> None:
    table = quickstart.gain_of_tuning(scores(10.0), scores(12.5))
    assert len(table.rows) == len(protocol.GROUPS) * len(protocol.COLUMNS)
    assert table.rows[0] == ("all", protocol.COLUMNS[0], 10.0, 12.5, 2.5)


def test_a_table_shows_what_a_trained_generator_gives() -> None:
    found = scores(20.0)
    found["PQ, trained generator"] = dict.fromkeys(protocol.GROUPS, 35.0)
    table = quickstart.gain_of_generator(found | scores_of_masks(50.0, 70.0))
    assert table.headers[2:] == ("superpixels", "trained generator", "gain")
    assert ("unseen", "mIoU", 20.0, 20.0, 0.0) in table.rows
    assert ("unseen", "PQ", 20.0, 35.0, 15.0) in table.rows
    assert ("all", "mIoU, classes given", 50.0, 70.0, 20.0) in table.rows
    assert len(table.rows) == 2 * len(protocol.GROUPS) + 2


def test_the_report_shows_tables_and_a_picture_of_every_view(tmp_path: Path) -> None:
    views = [
        View("on true masks", quickstart.BEFORE, None, protocol.TRUE_MASKS),
        View("on found masks", quickstart.BEFORE, None, protocol.TRAINED_GENERATOR),
    ]
    page = tmp_path / "report.html"
    report.write(
        page,
        tuning=quickstart.gain_of_tuning(scores(10.0), scores(12.5)),
        masks=quickstart.gain_of_generator(scores(20.0) | scores_of_masks(50.0, 70.0)),
        views=views,
        options=[],
        num_pictures=1,
    )
    text = page.read_text(encoding="utf-8")
    assert text.count("<table>") == 2
    assert text.count("data:image/png") == 2 + len(views)
    shares = re.findall(r"<figcaption>on \w+ masks: (\d+) % of the pixels right", text)
    assert len(shares) == len(views)
    assert all(int(share) > 10 for share in shares)


def test_scores_are_read_from_the_results_of_a_run(tmp_path: Path) -> None:
    evaluation = protocol.EVALUATIONS[0]
    folder = tmp_path / "classify_true_masks" / "inference" / protocol.DATASET
    folder.mkdir(parents=True)
    metrics = {"mMaskAcc": 30.0, "mMaskAcc(S)": 40.0, "mMaskAcc(U)": 20.0}
    (folder / "results.json").write_text(json.dumps({"results": {"mask_acc": metrics}}))
    scores = protocol.read_scores(evaluation, tmp_path)
    assert scores == {"mask accuracy": {"all": 30.0, "seen": 40.0, "unseen": 20.0}}


@pytest.mark.processes
def test_a_failed_run_shows_the_end_of_its_output(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(RuntimeError, match=r"(?s)terminal\.txt.*unrecognized arguments"):
        protocol.run(["--no-such-option"], tmp_path / "terminal.txt", lines.append)
    assert lines


@pytest.mark.processes
def test_bad_input_to_a_run_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--num-gpus", "0", "--config-file", "absent.yaml"]
    with pytest.raises(SystemExit) as stopped:
        protocol.run(arguments, tmp_path / "terminal.txt", lambda line: None)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: Config file 'absent.yaml' does not exist")
