"""A job of many shards: every image once, whoever is killed; other settings are refused."""

import json
import multiprocessing
import random
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskclippp.errors import InputError, MissingPackageError
from maskclippp.labeling import Job
from maskclippp.labeling.image_list import ImageList
from maskclippp.labeling.progress import Progress
from tests.labeling.jobs import holds_claim, labeler, rows_of, save_photos

IMAGES, SHARD_SIZE, KILLS = 24, 4, 5


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    save_photos(tmp_path / "photos", 5)
    return tmp_path / "photos"


def run(photos: Path, output: Path, **options: object) -> list[str]:
    """The lines that a job of two images per shard reports."""
    lines: list[str] = []
    job = Job(str(photos), output, **{"shard_size": 2, "write": lines.append, **options})
    job.run(labeler())
    return lines


def test_each_image_has_a_row_in_order(photos: Path, tmp_path: Path) -> None:
    lines = run(photos, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["image"] for row in rows] == [f"{index:03d}.png" for index in range(5)]
    assert [path.name for path in sorted((tmp_path / "out" / "labels").iterdir())] == [
        *("000000.jsonl", "000001.jsonl", "000002.jsonl")
    ]
    assert "001.png cannot be read" in rows[1]["error"]
    expected = labeler().predictor(photos / "000.png").to_coco("000.png")
    assert rows[0] == {
        **{"image": "000.png", "height": 96, "width": 128, "error": None},
        "segments": expected,
    }
    assert "5 of 5 images (100.0 %)" in lines[-2]
    assert "5 images labeled here" in lines[-1]
    rates = [float(re.search(r"([\d.]+) images/s", line)[1]) for line in lines[-2:]]
    assert rates[0] == pytest.approx(rates[1], rel=0.1)  # a shard may have fewer images
    assert "1 of them unreadable" in lines[-1]
    assert not list((tmp_path / "out" / "claims").iterdir())


def test_finished_shards_are_left_alone(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    (tmp_path / "out" / "labels" / "000001.jsonl").unlink()
    (tmp_path / "out" / "labels" / "000002.jsonl").write_text("kept\n")
    (photos / "new.png").write_bytes((photos / "000.png").read_bytes())
    assert "2 images labeled here" in run(photos, tmp_path / "out")[-1]
    assert (tmp_path / "out" / "labels" / "000002.jsonl").read_text() == "kept\n"
    (tmp_path / "out" / "labels" / "000002.jsonl").write_text(json.dumps(rows[4]))
    assert rows_of(tmp_path / "out") == rows


def test_a_shard_that_another_process_has_just_finished_is_left_alone(
    photos: Path, tmp_path: Path
) -> None:
    """Its file appears, and its claim vanishes, after one has looked for the file."""
    run(photos, tmp_path / "out")
    file = tmp_path / "out" / "labels" / "000000.jsonl"
    file.write_text("kept\n")
    job = Job(str(photos), tmp_path / "out", shard_size=2)
    images = ImageList(tmp_path / "out" / "images.txt", 2)
    assert job._label_if_free(0, images, labeler(), Progress(5, 5, print))
    assert file.read_text() == "kept\n"


def test_index_pngs_hold_the_class_of_every_pixel(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", index_png=True)
    rows = rows_of(tmp_path / "out")
    assert rows[1]["index_png"] is None
    found = np.asarray(Image.open(tmp_path / "out" / rows[4]["index_png"]))
    labels = labeler().predictor(photos / "004.png").labels
    assert np.array_equal(found, np.where(labels < 0, 255, labels))


def test_other_settings_are_refused_in_one_sentence(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, tmp_path / "out")
    with pytest.raises(InputError, match=r"another shard_size \(2 there, 3 here\), see .*manifest"):
        run(photos, tmp_path / "out", shard_size=3)
    with pytest.raises(InputError, match=r"another input \(.*/photos there, .*/photos/0\* here\)"):
        run(photos / "0*", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(labeler(), "threshold", 0.75)
        with pytest.raises(InputError, match=r"another threshold \(.* there, 0\.75 here\)"):
            run(photos, tmp_path / "out")
    monkeypatch.setattr(labeler(), "task", "panoptic")
    names = labeler().predictor.names
    labeler().predictor.set_classes(["a cat"])
    try:
        with pytest.raises(InputError, match=r"another task \(semantic .*\), words, see") as error:
            run(photos, tmp_path / "out")
    finally:
        labeler().predictor.set_classes([*names])
    assert "\n" not in str(error.value)


def test_a_job_needs_images_and_a_folder(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no images; expected names that end with"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match=r"absent does not exist"):
        run(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.* cannot be written"):
        run(photos, tmp_path / "file")


def test_a_damaged_folder_is_named(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    (tmp_path / "out" / "images.txt").unlink()
    with pytest.raises(InputError, match=r"images\.txt does not exist, without which the labels"):
        run(photos, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text('{"input": "photos"}')
    with pytest.raises(InputError, match=r"manifest\.json: the file lacks shard_size, format"):
        run(photos, tmp_path / "out")


def test_parquet_has_the_same_rows(photos: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for file_format in ("jsonl", "parquet"):
        run(photos, tmp_path / file_format, file_format=file_format)
    files = sorted((tmp_path / "parquet" / "labels").iterdir())
    found = [row for file in files for row in parquet.read_table(file).to_pylist()]
    assert found == rows_of(tmp_path / "jsonl")


def test_parquet_without_its_package_is_refused_at_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match="needs the package pyarrow"):
        Job(str(photos), tmp_path / "out", file_format="parquet")


def work(photos: Path, output: Path) -> None:
    """In a forked process, which has only the thread that forked."""
    torch.set_num_threads(1)
    Job(str(photos), output, shard_size=SHARD_SIZE).run(labeler())


def start(photos: Path, output: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=work, args=(photos, output))
    process.start()
    return process


def wait_for_claim(output: Path, process: multiprocessing.process.BaseProcess) -> None:
    while process.is_alive() and not holds_claim(process.pid, output / "claims"):
        time.sleep(0.005)


@pytest.mark.processes
def test_kills_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    save_photos(tmp_path / "photos", IMAGES)
    photos, output = tmp_path / "photos", tmp_path / "out"
    labeler()  # the children have it
    interrupted = 0
    for _ in range(KILLS):
        process = start(photos, output)
        wait_for_claim(output, process)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.join()
        interrupted += bool(list((output / "claims").glob("0*")))
    assert interrupted
    together = [start(photos, output) for _ in range(2)]
    for process in together:
        process.join()
        assert process.exitcode == 0
    threads = torch.get_num_threads()
    work(photos, tmp_path / "undisturbed")
    torch.set_num_threads(threads)
    rows = rows_of(output)
    assert [row["image"] for row in rows] == [f"{index:03d}.png" for index in range(IMAGES)]
    assert rows == rows_of(tmp_path / "undisturbed")
    assert not list((output / "claims").iterdir())
