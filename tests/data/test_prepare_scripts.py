"""What all preparation scripts promise: complete, resumable, checkable; errors that help."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data import original_layouts as originals
from tests.data.preparation_runs import DATASETS, files_below, run_main


def make_context_with_images(root: Path) -> None:
    originals.make_context(root)
    assert run_main("prepare_pascal_ctx_sem_seg", root) == 0


# Script -> what makes its originals.
SCRIPTS: dict[str, Callable[[Path], None]] = {
    "prepare_ade20k_sem_seg": originals.make_ade20k,
    "prepare_ade20k_ins_seg": originals.make_ade20k,
    "prepare_ade20k_pan_seg": originals.make_ade20k,
    "prepare_ade20k_full_sem_seg": originals.make_ade20k_full,
    "prepare_cityscapes_panoptic": originals.make_cityscapes,
    "prepare_coco_semantic_annos_from_panoptic_annos": originals.make_coco,
    "prepare_coco_stuff_sem_seg": originals.make_coco_stuff,
    "prepare_pascal_ctx_sem_seg": originals.make_context,
    "prepare_pascal_ctx_full_sem_seg": make_context_with_images,
    "prepare_pascal_voc_sem_seg": originals.make_voc,
}
each_script = pytest.mark.parametrize("script", SCRIPTS)


def prepare(script: str, root: Path) -> list[Path]:
    """Make originals and run the script; returns the files that it made."""
    SCRIPTS[script](root)
    before = files_below(root)
    assert run_main(script, root) == 0
    return sorted(files_below(root) - before)


def test_every_script_is_tested() -> None:
    assert sorted(SCRIPTS) == sorted(path.stem for path in DATASETS.glob("prepare_*.py"))


@each_script
def test_check_fails_before_and_passes_after(script: str, tmp_path: Path) -> None:
    SCRIPTS[script](tmp_path)
    assert run_main(script, tmp_path, "--check") == 1
    assert run_main(script, tmp_path) == 0
    assert run_main(script, tmp_path, "--check") == 0


@each_script
def test_second_run_writes_nothing(script: str, tmp_path: Path) -> None:
    made = prepare(script, tmp_path)
    assert made
    before = [path.stat().st_mtime_ns for path in made]
    assert run_main(script, tmp_path) == 0
    assert [path.stat().st_mtime_ns for path in made] == before


@each_script
def test_next_run_completes_an_interrupted_one(script: str, tmp_path: Path) -> None:
    made = prepare(script, tmp_path)
    contents = {path: path.read_bytes() for path in made}
    made[0].unlink()
    made[-1].write_bytes(b"")  # what a power cut can leave
    assert run_main(script, tmp_path) == 0
    assert {path: path.read_bytes() for path in made} == contents
    assert not [path for path in files_below(tmp_path) if path.suffix == ".tmp"]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@each_script
def test_check_names_damage_and_repair_mends_it(
    script: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = prepare(script, tmp_path)
    damaged = made[len(made) // 2]
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    assert run_main(script, tmp_path) == 0  # a file with content is taken for complete
    caplog.clear()
    assert run_main(script, tmp_path, "--check") == 1
    assert str(damaged) in caplog.text
    assert run_main(script, tmp_path, "--repair") == 0
    assert damaged.read_bytes() == content


@each_script
def test_damaged_image_is_named(
    script: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(script, tmp_path)
    image = sorted(p for p in files_below(tmp_path) if "2" in p.stem and is_photograph(p))[-1]
    image.write_bytes(image.read_bytes()[:-200])
    assert run_main(script, tmp_path, "--check") == 1
    assert str(image) in caplog.text


def is_photograph(path: Path) -> bool:
    return path.suffix == ".jpg" or path.stem.endswith("leftImg8bit")


@each_script
def test_missing_originals_are_explained(
    script: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_main(script, tmp_path) == 1
    assert str(tmp_path) in caplog.text
    assert "http" in caplog.text or "prepare_pascal_ctx_sem_seg" in caplog.text


def test_one_broken_original_stops_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    originals.make_ade20k(tmp_path)
    maps = sorted((tmp_path / "ADEChallengeData2016" / "annotations" / "validation").iterdir())
    maps[0].write_bytes(maps[0].read_bytes()[:40])
    assert run_main("prepare_ade20k_sem_seg", tmp_path) == 1
    assert str(maps[0]) in caplog.text
    assert "val label maps: 1 of 2 files are complete" in caplog.text
    assert "train label maps: 1 of 1 files are complete" in caplog.text


def test_only_check_speaks_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Labels can be prepared where the images are not."""
    caplog.set_level(logging.INFO)
    originals.make_coco_stuff(tmp_path)
    image = tmp_path / "coco" / "val2017" / "000000000002.jpg"
    image.unlink()
    assert run_main("prepare_coco_stuff_sem_seg", tmp_path) == 0
    assert "images" not in caplog.text
    assert run_main("prepare_coco_stuff_sem_seg", tmp_path, "--check") == 1
    assert f"image {image} does not exist" in caplog.text
    assert "val images: 1 of 2 files are correct" in caplog.text


def test_json_is_not_written_without_all_its_images(tmp_path: Path) -> None:
    originals.make_ade20k(tmp_path)
    base = tmp_path / "ADEChallengeData2016"
    next((base / "annotations_instance" / "training").iterdir()).write_bytes(b"no picture")
    assert run_main("prepare_ade20k_ins_seg", tmp_path) == 1
    assert (base / "ade20k_instance_val.json").is_file()
    assert not (base / "ade20k_instance_train.json").exists()


@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        (lambda made: [], "expected an object with the lists"),
        (lambda made: {**made, "images": 3}, "expected an object with the lists"),
        (lambda made: {**made, "info": []}, "keys ['annotations', 'categories', 'images', 'info']"),
        (lambda made: {**made, "images": made["images"][1:]}, "expected 2 entries, found 1"),
        (lambda made: {**made, "images": made["images"][::-1]}, 'images[0]: expected {"id":'),
    ],
)
def test_check_tells_how_a_json_differs(
    damage: Callable[[Any], Any],
    difference: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    originals.make_ade20k(tmp_path)
    assert run_main("prepare_ade20k_ins_seg", tmp_path) == 0
    file = tmp_path / "ADEChallengeData2016" / "ade20k_instance_val.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    assert run_main("prepare_ade20k_ins_seg", tmp_path, "--check") == 1
    assert f"{file}: " in caplog.text
    assert difference in caplog.text


def test_many_problems_are_counted_and_ten_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "coco" / "stuffthingmaps" / "val2017"
    folder.mkdir(parents=True)
    for number in range(13):
        (folder / f"{number:012d}.png").write_bytes(b"no picture")
    assert run_main("prepare_coco_stuff_sem_seg", tmp_path, "--splits", "val") == 1
    assert caplog.text.count("cannot be read") == 10
    assert "and 3 more problems" in caplog.text
