"""The quickstart's pieces: progress from log lines, its table, results and failures of runs."""

import json
import multiprocessing
import re
import shlex
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from maskclippp.cli import main as program
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.engine import Trainer
from maskclippp.engine.checkpoint import Checkpointer
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


def test_the_report_has_numbers_scenes_and_tables(tmp_path: Path) -> None:
    views = [
        View("plain", quickstart.BEFORE, None, protocol.TRUE_MASKS),
        View("again", quickstart.BEFORE, None, protocol.TRUE_MASKS),
        View("found masks", quickstart.BEFORE, None, protocol.TRAINED_GENERATOR),
    ]
    page = tmp_path / "report.html"
    report.write(
        page,
        headline=quickstart.headline(scores(10.0), scores(60.0)),
        views=views,
        tables=[
            quickstart.gain_of_tuning(scores(10.0), scores(12.5)),
            quickstart.gain_of_generator(scores(20.0) | scores_of_masks(50.0, 70.0)),
        ],
        options=[],
        num_scenes=2,
    )
    text = page.read_text(encoding="utf-8")
    assert text.count('<div class="gain">') == 4
    assert text.count("<table>") == 2
    # The clearest scene: image, truth, before and after; then both scenes in every view.
    assert text.count("data:image/webp") == 4 + 2 * (2 + len(views))
    shares = re.findall(r"<figcaption>plain: (\d+) % of the pixels right", text)
    assert len(shares) == 3
    assert all(int(share) > 10 for share in shares)


def test_a_stage_is_one_line_where_no_terminal_redraws(capsys: pytest.CaptureFixture[str]) -> None:
    with quickstart.stage("drawing", "scene", 3) as bar:
        bar.update(3)
    captured = capsys.readouterr()
    assert re.fullmatch(r"drawing: \d+ s\n", captured.out)
    assert not captured.err


def test_the_table_of_classes_has_both_models(tmp_path: Path) -> None:
    name = "red dotted circle, red spotted disc, crimson dotted circle, crimson spotted disc"
    for folder, value in (("before", 20.0), ("after", 70.0)):
        for evaluation, task, metrics in (
            (protocol.EVALUATIONS[0], "mask_acc", {f"MaskAcc-{name}": value}),
            (protocol.EVALUATIONS[-1], "sem_seg", {f"IoU-{name}": value + 1, f"ACC-{name}": 0}),
        ):
            results = tmp_path / folder / evaluation.name.replace(" ", "_") / "inference"
            (results / protocol.DATASET).mkdir(parents=True)
            content = {"results": {"panoptic_seg": {}, task: metrics}}
            (results / protocol.DATASET / "results.json").write_text(json.dumps(content))
    table = quickstart.class_table(tmp_path / "before", tmp_path / "after")
    assert table.sortable
    assert table.rows[0] == ("red dotted circle", "unseen", 20.0, 70.0, 21.0, 71.0)


def test_scores_are_read_from_the_results_of_a_run(tmp_path: Path) -> None:
    evaluation = protocol.EVALUATIONS[0]
    folder = tmp_path / "classify_ground-truth_masks" / "inference" / protocol.DATASET
    folder.mkdir(parents=True)
    metrics = {"mMaskAcc": 30.0, "mMaskAcc(S)": 40.0, "mMaskAcc(U)": 20.0}
    (folder / "results.json").write_text(json.dumps({"results": {"mask_acc": metrics}}))
    scores = protocol.read_scores(evaluation, tmp_path)
    assert scores == {"mask accuracy": {"all": 30.0, "seen": 40.0, "unseen": 20.0}}


@pytest.mark.processes
def test_a_failed_run_shows_the_end_of_its_output(tmp_path: Path) -> None:
    config = str(protocol.REPOSITORY / "configs" / "shapes" / "plain_clip.yaml")
    arguments = ["--num-gpus", "0", "--eval-only", "--config-file", config]
    lines: list[str] = []

    def kill(line: str) -> None:
        lines.append(line)
        for process in multiprocessing.active_children():
            process.kill()

    options = ["OUTPUT_DIR", str(tmp_path)]
    with pytest.raises(RuntimeError, match=r"terminal\.txt") as failed:
        protocol.run([*arguments, *options], tmp_path / "terminal.txt", kill)
    assert lines[0] in str(failed.value)


@pytest.mark.processes
def test_bad_input_to_a_run_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--num-gpus", "0", "--config-file", "absent.yaml"]
    with pytest.raises(SystemExit) as stopped:
        protocol.run(arguments, tmp_path / "terminal.txt", lambda line: None)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: Config file 'absent.yaml' does not exist")


def test_the_last_words_are_a_command_that_segments_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = get_cfg()
    merge_config_file(cfg, quickstart.AFTER)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.MODEL.DEVICE = (), (), "cpu"
    Checkpointer(Trainer.build_model(cfg), str(tmp_path)).save("fine tuned")
    _, command = quickstart.own_picture(tmp_path / "fine tuned.pth").split("python -m maskclippp ")
    picture = quickstart.REPOSITORY / "docs" / "images" / "picture.webp"
    words = shlex.split(command.replace("PICTURE", str(picture)).replace("\\\n", " "))
    program.main([*words, "--device", "cpu"])
    assert list((tmp_path / "segments").glob("*.png"))
