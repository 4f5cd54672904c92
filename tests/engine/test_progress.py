"""An evaluation that is killed goes on with --resume, and gives what an undisturbed one gives."""

import math
import os
import shutil
import signal
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from maskclippp.data.shapes import dataset as shapes
from maskclippp.engine import progress
from tests.engine import test_train_shapes
from tests.engine.processes import run_in_processes
from tests.engine.test_resume import KILLED
from tests.engine.test_run_folder import RUN, said

SCENES = 6
TASKS = "MODEL.MASK_FORMER.TEST"
OPTIONS = (
    *("MODEL.WEIGHTS", "", "MODEL.MASKCLIPPP.TEST.MASK_ACC", "False"),
    *("MODEL.MASKCLIPPP.SEGMENTOR.NAME", "SuperpixelSegmentor"),
    *(f"{TASKS}.SEMANTIC_ON", "True", f"{TASKS}.PANOPTIC_ON", "True"),
    *(f"{TASKS}.INSTANCE_ON", "True", f"{TASKS}.OBJECT_MASK_THRESHOLD", "0.0"),
)
HEAD = 8 + 32  # bytes before each entry of a journal: its length and its SHA-256
INFERENCE = RUN / "inference" / "shapes_val"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKCLIPPP_CACHE", str(cache))
        for split, count in (("train", 2), ("val", SCENES)):
            shapes.write_split(split, count, shapes.shapes_folder() / split)
    return cache


def evaluate(
    cache: Path,
    folder: Path,
    *arguments: str,
    options: tuple[str, ...] = (),
    kill_after: int | None = None,
    world_size: int = 1,
) -> list[int]:
    """Run the command in ``folder``; SIGKILL comes after so many images of one process."""
    (folder / "tiny.yaml").write_text(test_train_shapes.CONFIG)
    command = ["--config-file", "tiny.yaml", "--num-gpus", str(world_size), "--tag", "run"]
    command += ["--eval-only", *arguments, *OPTIONS, *options]
    place = (cache, folder, command, kill_after, f"rendezvous_{uuid.uuid4()}")
    return run_in_processes(_main, *place, world_size=world_size)


def _main(
    cache: Path,
    folder: Path,
    command: list[str],
    kill_after: int | None,
    rendezvous: str,
    **place: Any,
) -> None:
    progress._SECONDS, progress._SHARE = 0.0, math.inf  # every image
    if kill_after is not None and place["rank"] == 0:
        journal = folder / INFERENCE / "progress_0.journal"
        threading.Thread(target=_kill, args=(journal, kill_after), daemon=True).start()
    test_train_shapes._main(cache, folder, command, None, rendezvous, **place)


def _kill(journal: Path, images: int) -> None:
    """Kill this process when the file has its header and so many more images."""
    enough = max(1, whole_entries(journal)) + images
    while whole_entries(journal) < enough:
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.SIGKILL)


def whole_entries(journal: Path) -> int:
    """How many entries were written to their ends; others may look at the file meanwhile."""
    content = journal.read_bytes() if journal.exists() else b""
    count = end = 0
    while len(content) >= end + HEAD:
        end += HEAD + int.from_bytes(content[end : end + 8], "little")
        count += end <= len(content)
    return count


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / INFERENCE).iterdir()}


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed evaluation."""
    folder = tmp_path_factory.mktemp("whole")
    assert evaluate(cache, folder) == [0], said(folder)
    found = contents(folder)
    assert {"results.json", "predictions.json", "sem_seg_pictures.png"} <= set(found)
    assert not any("journal" in name for name in found)
    return found


@pytest.fixture(scope="module")
def killed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an evaluation that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    assert evaluate(cache, folder, kill_after=3) == [KILLED]
    assert set(contents(folder)) == {"progress_0.journal"}
    return folder


def finished(folder: Path) -> list[str]:
    """What the runs in a folder said of images that were finished before."""
    return [
        line.partition("shapes_val: ")[2]
        for line in said(folder).splitlines()
        if "continuing after" in line or "is not continued" in line
    ]


def test_a_killed_evaluation_goes_on_and_gives_the_same_files(
    cache: Path, whole: dict[str, bytes], killed: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(killed, tmp_path / "copy")
    assert evaluate(cache, folder, "--resume", kill_after=1) == [KILLED]
    journal = folder / INFERENCE / "progress_0.journal"
    shutil.copy(journal, journal.with_name("progress_1.journal"))  # of more processes, before
    assert evaluate(cache, folder, "--resume") == [0], said(folder)
    first, second = (int(line.split()[2]) for line in finished(folder))
    assert 3 <= first < second < SCENES
    assert contents(folder) == whole


def test_each_process_goes_on_with_its_own_images(
    cache: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    assert evaluate(cache, tmp_path, kill_after=1, world_size=2)[0] == KILLED
    assert evaluate(cache, tmp_path, "--resume", world_size=2) == [0, 0], said(tmp_path)
    assert "continuing after" in finished(tmp_path)[0]
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        ((), (), "because --resume was not given"),
        (("--resume",), (f"{TASKS}.OVERLAP_THRESHOLD", "0.5"), "one of other settings"),
        (("--resume",), ("DATASETS.VOCABULARY", "words.txt"), "one of other settings and words"),
        (("--resume",), ("SEED", "6"), "one of other settings and weights"),
    ],
    ids=["no resume", "settings", "words", "weights"],
)
def test_images_of_another_evaluation_are_not_used(
    cache: Path,
    killed: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    options: tuple[str, ...],
    reason: str,
) -> None:
    folder = shutil.copytree(killed, tmp_path / "copy")
    (folder / "words.txt").write_text("".join(f"word {number}\n" for number in range(48)))
    codes = evaluate(cache, folder, *arguments, options=options)
    assert reason in "".join(finished(folder)), said(folder)
    assert codes == [0]


def test_another_number_of_processes_starts_over(
    cache: Path, whole: dict[str, bytes], killed: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(killed, tmp_path / "copy")
    assert evaluate(cache, folder, "--resume", world_size=2) == [0, 0]
    assert "of other numbers of processes" in finished(folder)[0]
    assert contents(folder) == whole


def test_changed_images_are_evaluated_again(cache: Path, killed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(killed, tmp_path / "copy")
    image = next(path for path in sorted(cache.glob("**/val/**/*")) if path.suffix == ".jpg")
    os.utime(image)
    assert evaluate(cache, folder, "--resume") == [0], said(folder)
    assert f"{image} has changed" in finished(folder)[0]
