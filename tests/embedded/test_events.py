"""EventStorage and its writers: the golden run of 60 steps."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.golden_cases import GoldenCase, cases

CASES = cases("engine_events")
START, METRIC_PERIOD, WRITE_PERIOD, MAX_ITER, WINDOW = 10, 7, 20, 75, 20


class Recorder(logging.Handler):
    """Keeps the messages of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def run(case: GoldenCase, folder: Path) -> tuple[EventStorage, list[str], Path]:
    """The run that the case describes: storage, lines of the printer, file of the JSON writer."""
    recorder = Recorder()
    logger = logging.getLogger("detectron2.utils.events")
    logger.addHandler(recorder)
    logger.setLevel(logging.INFO)
    metrics = folder / "metrics.json"
    with EventStorage(START) as storage:
        writers = [
            CommonMetricPrinter(MAX_ITER),
            JSONWriter(str(metrics)),
            TensorboardXWriter(str(folder)),
        ]
        for i, loss in enumerate(case.info["loss_a"]):
            storage.put_scalar("loss_a", loss)
            storage.put_scalar("lr", 0.1 / (i + 1), smoothing_hint=False)
            storage.put_scalars(time=0.5, data_time=0.01 * (i % 5))
            if i % METRIC_PERIOD == 0:
                storage.put_scalar("[metric]acc", 2 * loss)
            if i == 20:
                with storage.name_scope("bbox"):
                    storage.put_scalar("AP", 33.3, smoothing_hint=False)
            if (i + 1) % WRITE_PERIOD == 0:
                for writer in writers:
                    writer.write()
            storage.step()
        for writer in writers:
            writer.close()
    logger.removeHandler(recorder)
    return storage, recorder.messages, metrics


@pytest.mark.parametrize("case", CASES, ids=str)
def test_json_lines_are_the_golden_ones(case: GoldenCase, tmp_path: Path) -> None:
    _, _, metrics = run(case, tmp_path)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    expected = case.info["metrics_json_lines"]
    assert [sorted(line) for line in lines] == [sorted(line) for line in expected]
    for line, right in zip(lines, expected, strict=True):
        assert list(line) == sorted(line)
        assert line == pytest.approx(right, abs=case.info["tolerance_abs"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_printer_lines_are_the_golden_ones(case: GoldenCase, tmp_path: Path) -> None:
    _, messages, _ = run(case, tmp_path)
    shown = [message.split("max_mem")[0].strip() for message in messages]
    assert shown == [line.strip() for line in case.info["printer_lines"]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_storage_ends_as_the_golden_one(case: GoldenCase, tmp_path: Path) -> None:
    storage, _, _ = run(case, tmp_path)
    final = case.info["final"]
    history = storage.history("loss_a")
    found: dict[str, Any] = {
        "iter": storage.iter,
        "latest_loss_a": list(storage.latest()["loss_a"]),
        "median20": history.median(WINDOW),
        "avg20": history.avg(WINDOW),
        "global_avg": history.global_avg(),
        "count_samples_acc_window20": storage.count_samples("[metric]acc", WINDOW),
    }
    assert sorted(storage.latest()) == final["keys"]
    for name, value in found.items():
        assert value == pytest.approx(final[name], abs=case.info["tolerance_abs"]), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tensorboard_gets_the_same_scalars(case: GoldenCase, tmp_path: Path) -> None:
    run(case, tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    written = {(event.step, round(event.value, 4)) for event in events.Scalars("loss_a")}
    expected = case.info["metrics_json_lines"]
    assert written == {
        (line["iteration"], round(line["loss_a"], 4)) for line in expected if "loss_a" in line
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_scalar_must_keep_its_smoothing_hint(case: GoldenCase) -> None:
    with EventStorage() as storage:
        storage.put_scalar("lr", 1.0, smoothing_hint=False)
        with pytest.raises(AssertionError) as caught:
            storage.put_scalar("lr", 1.0, smoothing_hint=True)
    assert str(caught.value).startswith(case.info["conflicting_smoothing_hint"]["message_start"])


def test_an_unknown_history_is_a_key_error() -> None:
    with EventStorage() as storage, pytest.raises(KeyError, match="No history metric"):
        storage.history("nope")


def test_the_storage_exists_within_its_context_only() -> None:
    with EventStorage() as storage:
        assert get_event_storage() is storage
    with pytest.raises(AssertionError, match="has to be called inside"):
        get_event_storage()


def test_the_printer_is_silent_after_the_last_iteration() -> None:
    recorder = Recorder()
    logger = logging.getLogger("detectron2.utils.events")
    logger.addHandler(recorder)
    with EventStorage(5):
        CommonMetricPrinter(5).write()
    logger.removeHandler(recorder)
    assert recorder.messages == []


def test_the_json_file_is_appended_to(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    for value in (1.0, 2.0):
        with EventStorage() as storage:
            writer = JSONWriter(str(file))
            storage.put_scalar("a", value)
            writer.write()
            writer.close()
    assert [json.loads(line)["a"] for line in file.read_text().splitlines()] == [1.0, 2.0]
