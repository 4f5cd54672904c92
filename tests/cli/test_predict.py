"""The command ``predict``: pictures and videos in, files out, continued where it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from maskclippp.cli.main import main
from maskclippp.engine.interruption import INTERRUPTED_STATUS
from tests.golden_cases import REPOSITORY
from tests.shapes_predictor import WORDS, picture

CLASSES = "; ".join(WORDS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two pictures in ``in``."""
    (tmp_path / "in").mkdir()
    for index in range(2):
        Image.fromarray(picture(index)).save(tmp_path / "in" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*arguments: str) -> None:
    main(["predict", "--model", "shapes", "--device", "cpu", "--output", "out", *arguments])


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        predict(*arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err.splitlines()
    return next(line for line in message if line.startswith("error: "))


def test_a_folder_gives_all_kinds_of_files(folder: Path) -> None:
    kinds = ["overlay", "index", "panoptic", "coco", "npz"]
    predict("in", "--classes", CLASSES, "--task", "panoptic", "--save-as", *kinds)
    endings = [".index.png", ".json", ".npz", ".panoptic.json", ".panoptic.png", ".png"]
    expected = [f"{index}{ending}" for index in range(2) for ending in endings]
    assert sorted(file.name for file in (folder / "out").iterdir()) == [*expected, "predict.json"]


def test_a_finished_picture_is_not_segmented_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("in/0.png", "--classes", CLASSES)
    (folder / "out" / "0.png").write_text("finished")
    predict("in", "--classes", CLASSES)
    assert "1 of 2 images are finished" in capsys.readouterr().out
    assert (folder / "out" / "0.png").read_text() == "finished"
    assert (folder / "out" / "1.png").is_file()
    message = error_of(capsys, "in", "--classes", "cat; dog")
    assert "has results of another classes" in message
    predict("in", "--classes", CLASSES, "--overwrite")
    assert np.asarray(Image.open(folder / "out" / "0.png")).ndim == 3


def test_earlier_results_never_pass_for_those_of_other_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("in", "--classes", CLASSES)
    (folder / "in" / "1.png").write_text("damaged")
    error_of(capsys, "in", "--classes", "cat; dog", "--overwrite")
    assert (folder / "out" / "0.png").is_file()
    assert not (folder / "out" / "1.png").exists()


def test_pictures_of_one_name_do_not_overwrite_each_other(folder: Path) -> None:
    (folder / "in" / "town").mkdir()
    for name in ("0.jpg", "town/0.png"):
        Image.fromarray(picture(2)).save(folder / "in" / name)
    predict("in/*.*", "in/town", "--classes", CLASSES, "--save-as", "index")
    found = {str(file.relative_to("out")) for file in Path("out").rglob("*.index.png")}
    assert found == {"0.png.index.png", "0.jpg.index.png", "1.index.png", "town/0.index.png"}


def test_results_never_replace_their_pictures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "in" / "0.png").read_bytes()
    message = error_of(capsys, "in", "--classes", CLASSES, "--output", "in/../in", "--overwrite")
    assert "--output in/../in holds images that are to be segmented" in message
    assert (folder / "in" / "0.png").read_bytes() == before


def test_a_refused_command_leaves_no_settings_behind(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error_of(capsys, "in", "--classes", CLASSES, "--model", "shaped")
    error_of(capsys, "in", "--classes", CLASSES, "--generator", "GTSegmentor")
    predict("in/0.png", "--classes", CLASSES)
    assert (folder / "out" / "0.png").is_file()


def test_a_damaged_picture_is_left_out_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "in" / "bad.png").write_text("no picture")
    message = error_of(capsys, "in", "--classes", CLASSES)
    assert "1 of 3 images were left out: image in/bad.png cannot be read" in message
    assert {"0.png", "1.png"} <= {file.name for file in (folder / "out").iterdir()}


def write_video(path: str) -> None:
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), 5, (256, 192))
    for index in range(3):
        writer.write(np.ascontiguousarray(picture(index)[..., ::-1]))
    writer.release()


def test_videos_of_one_name_do_not_overwrite_each_other(folder: Path) -> None:
    (folder / "town").mkdir()
    for name in ("v.mp4", "town/v.mp4"):
        write_video(name)
    predict("v.mp4", "town/v.mp4", "--classes", CLASSES, "--frames", "1")
    assert {str(file.relative_to("out")) for file in Path("out").rglob("*.mp4")} == {
        "v.mp4",
        "town/v.mp4",
    }


def test_a_video_gives_a_video_and_files_per_frame(folder: Path) -> None:
    write_video("v.mp4")
    predict("v.mp4", "--classes", CLASSES, "--save-as", "overlay", "coco", "--frames", "2")
    capture = cv2.VideoCapture("out/v.mp4")
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert capture.get(cv2.CAP_PROP_FPS) == 5
    assert json.loads(Path("out/v_000001.json").read_text()) is not None


def test_a_vocabulary_is_a_dataset_or_a_file(folder: Path) -> None:
    (folder / "words.txt").write_text("\n".join(WORDS))
    predict("in/0.png", "--vocabulary", "words.txt", "--save-as", "npz")
    with np.load("out/0.npz") as arrays:
        assert arrays["names"].tolist() == WORDS
    predict("in/0.png", "--vocabulary", "shapes_val", "--save-as", "npz", "--overwrite")
    with np.load("out/0.npz") as arrays:
        assert len(arrays["names"]) == 48


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_keeps_what_is_finished(
    number: signal.Signals, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2, 200):
        (folder / "in" / f"{index}.png").hardlink_to(folder / "in" / "0.png")
    words = ["--classes", CLASSES, "--model", "shapes", "--device", "cpu", "--output", "out"]
    command = [sys.executable, "-m", "maskclippp", "predict", "in", *words, "--save-as", "index"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Shells start background jobs with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(list(folder.glob("out/*.png"))) < 3 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == INTERRUPTED_STATUS
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("stopped: what is finished is in out; ")
    finished = list(folder.glob("out/*.png"))
    assert all(Image.open(file).size == (256, 192) for file in finished)
    assert not list(folder.glob("out/.*"))
    for picture_file in (folder / "in").iterdir():
        if not (folder / "out" / f"{picture_file.stem}.index.png").exists():
            picture_file.unlink()  # the rest would take long
    predict("in", *words, "--save-as", "index")
    count = len(finished)
    assert f"{count} of {count} images are finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.jpg", "--classes", "a; b"], "absent.jpg does not exist"),
        (["in/*.bmp", "--classes", "a; b"], "in/*.bmp does not exist"),
        (["empty", "--classes", "a; b"], "empty has no image"),
        (["notes.txt", "--classes", "a; b"], "notes.txt is neither an image"),
        (["empty.mp4", "--classes", "a; b"], "empty.mp4 cannot be read: it has no frame"),
        (["in", "--classes", " ; "], "class 0: expected a word such as 'cat', found a blank"),
        (["in", "--classes", "cat; cat"], "occur more than once"),
        (["in", "--vocabulary", "absent.txt"], "absent.txt does not exist"),
        (["in", "--classes", "a; b", "--model", "shaped"], "'shaped' is not in the list"),
        (["in", "--classes", "a; b", "--batch-size", "0"], "--batch-size: expected a positive"),
        (["in", "--classes", "a; b", "--threshold", "50"], "--threshold: expected a probability"),
        # What is wrong is told before a model is fetched.
        (["in", "--classes", "a; a", "--model", "shaped"], "occur more than once"),
        (
            ["in", "--classes", "a; b", "--model", "shaped", "--output", "notes.txt/out"],
            "--output notes.txt/out cannot be written (Not a directory)",
        ),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    (folder / "notes.txt").touch()
    (folder / "empty.mp4").touch()
    assert message in error_of(capsys, *arguments)
