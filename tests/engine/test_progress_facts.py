"""When finished images count: files that the records do not name, and weights of generators."""

import math
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from PIL import Image
from torch import nn

from maskclippp.config.keys import get_cfg
from maskclippp.engine import progress
from maskclippp.engine.progress import Progress
from maskclippp.evaluation import SemanticEvaluator
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.files.journal import Journal
from maskclippp.generators import MaskGenerator, OfflineSegmentor
from tests.evaluation.golden_datasets import small_dataset

IMAGES = 3


class Weighted(MaskGenerator):
    """A generator with a weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, _: Any) -> list[Any]:
        """Never called."""
        return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds images, label maps and masks."""
    for number in range(IMAGES):
        for ending in ("jpg", "png"):
            Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / f"{number}.{ending}")
        (tmp_path / "masks").mkdir(exist_ok=True)
        np.savez(tmp_path / "masks" / f"{number}.npz", masks=np.ones((1, 4, 6), bool))
    (tmp_path / "none").mkdir()
    return tmp_path


@pytest.fixture
def truth(folder: Path) -> Iterator[GroundTruth]:
    """A dataset whose panoptic maps, unlike its label maps, are missing."""
    records = [
        {
            "file_name": str(folder / f"{number}.jpg"),
            "sem_seg_file_name": str(folder / f"{number}.png"),
            "pan_seg_file_name": str(folder / "none" / f"{number}.png"),
        }
        for number in range(IMAGES)
    ]
    with small_dataset(records) as truth:
        yield truth


@pytest.fixture(autouse=True)
def every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_SHARE", math.inf)


def images_left(folder: Path, truth: GroundTruth, generator: MaskGenerator, score: int) -> int:
    """How many images ``--resume`` evaluates; ``score`` more are finished then."""
    model = nn.Module()
    model.__dict__["mask_generator"] = generator
    records = get_detection_dataset_dicts([truth.dataset_name], filter_empty=False)
    loader = build_detection_test_loader(
        records, mapper=lambda record: record, num_workers=0, collate_fn=list
    )
    kept = Progress(get_cfg(), model, {}, resume=True)
    output = folder / "inference"
    loader, evaluator = kept.keep(truth.dataset_name, loader, SemanticEvaluator(truth), output, {})
    evaluator.reset()
    for _, batch in zip(range(score), loader, strict=False):
        evaluator.process(batch, [{"sem_seg_labels": torch.zeros(4, 6)}])
    return len(loader)


def test_files_that_are_still_missing_have_not_changed(folder: Path, truth: GroundTruth) -> None:
    generator = Weighted(1.0)
    assert images_left(folder, truth, generator, score=2) == 3
    assert images_left(folder, truth, generator, score=0) == 1
    (folder / "none" / "other.png").touch()
    assert images_left(folder, truth, generator, score=0) == 3


def test_other_weights_of_the_generator_start_over(
    folder: Path, truth: GroundTruth, caplog: pytest.LogCaptureFixture
) -> None:
    assert images_left(folder, truth, Weighted(1.0), score=2) == 3
    assert images_left(folder, truth, Weighted(1.0), score=0) == 1
    assert images_left(folder, truth, Weighted(2.0), score=0) == 3
    assert "because it was one of other mask generators" in caplog.text


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_changed_mask_files_of_finished_images_start_over(
    changed: int, folder: Path, truth: GroundTruth
) -> None:
    """Those of the other images are still to be read. Copies may keep an old time of writing."""
    generator = OfflineSegmentor(folder=folder / "masks", suffix=".npz")
    assert images_left(folder, truth, generator, score=2) == 3
    time.sleep(0.02)  # the clock of files may be behind
    os.utime(folder / "masks" / f"{changed}.npz", (1e9, 1e9))
    assert images_left(folder, truth, generator, score=0) == (1 if changed == 2 else 3)


def test_an_edited_program_starts_over(
    folder: Path, truth: GroundTruth, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(Path(progress.__file__).parent, folder / "copy"))
    monkeypatch.setattr(progress.maskclippp, "__path__", [str(source)])
    assert images_left(folder, truth, Weighted(1.0), score=2) == 3
    assert images_left(folder, truth, Weighted(1.0), score=0) == 1
    with (source / "evaluate.py").open("a") as file:
        file.write("# edited\n")
    assert images_left(folder, truth, Weighted(1.0), score=0) == 3


@pytest.mark.parametrize("entries", [(b"{}", b"not compressed"), (b"\xff",), (b"[1]", b"")])
def test_a_journal_of_another_form_is_not_continued(
    entries: tuple[bytes, ...],
    folder: Path,
    truth: GroundTruth,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As another version may have left it."""
    journal = Journal(folder / "inference" / "progress_0.journal")
    for entry in entries:
        journal.append(entry)
    journal.close()
    assert images_left(folder, truth, Weighted(1.0), score=2) == 3
    assert "progress_0.journal is not continued, because it is no journal" in caplog.text
    assert images_left(folder, truth, Weighted(1.0), score=0) == 1


def test_a_full_disk_is_reported_once_and_ends_the_journal(
    folder: Path, truth: GroundTruth, caplog: pytest.LogCaptureFixture
) -> None:
    """The evaluation goes on without it."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    generator = Weighted(1.0)
    assert images_left(folder, truth, generator, score=1) == 3
    size = (folder / "inference" / "progress_0.journal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limit[1]))
    try:
        assert images_left(folder, truth, generator, score=2) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caplog.text.count("no more images are kept") == 1
    assert images_left(folder, truth, generator, score=0) == 2


@pytest.mark.parametrize(
    ("duration", "images", "entries"),
    [
        (0.0, (1, 9.9), 0),
        (0.0, (1, 10, 11, 19.9), 1),
        (0.0, (10, 20, 30), 3),
        (0.5, (10, 20, 30, 59), 1),  # 50 seconds after it: 1 % of the time
        (0.5, (10, 20, 60.6), 2),
    ],
)
def test_a_journal_is_written_now_and_then(
    duration: float,
    images: tuple[float, ...],
    entries: int,
    folder: Path,
    truth: GroundTruth,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every 10 seconds, or less often if it takes more than its share of the time."""
    clock = SimpleNamespace(now=0.0)

    def append(entry: bytes) -> None:
        clock.now += duration
        written.append(entry)

    monkeypatch.setattr(progress, "_SECONDS", 10.0)
    monkeypatch.setattr(progress, "_SHARE", 0.01)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    written: list[bytes] = []
    journal = Journal(folder / "a.journal")
    monkeypatch.setattr(journal, "append", append)
    evaluator = SemanticEvaluator(truth)
    kept = progress._KeptEvaluator(evaluator, [evaluator], journal, [])
    kept.reset()
    (record, *_) = get_detection_dataset_dicts([truth.dataset_name], filter_empty=False)
    for seconds in images:
        clock.now = seconds
        kept.process([record], [{"sem_seg_labels": torch.zeros(4, 6)}])
    assert len(written) == entries


def test_a_fingerprint_follows_every_number_of_a_small_tensor() -> None:
    module = nn.Linear(8, 8)
    found = {progress._fingerprint(module)}
    for index in range(64):
        with torch.no_grad():
            module.weight.view(-1)[index] += 1
        found.add(progress._fingerprint(module))
    assert len(found) == 65
