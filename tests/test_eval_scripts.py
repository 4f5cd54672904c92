"""eval_all.sh and eval_mask_acc.sh, sourced by bash as users do."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from maskclippp.data.shapes.dataset import write_split
from tests.golden_cases import REPOSITORY

CONFIG = "configs/shapes/plain_clip.yaml"
PUBLISHED_NAMES = [
    *("ade150", "ade847", "ctx59", "ctx459", "pc20", "pas20", "coco", "coco133", "cocostuff"),
    *("cityscapes", "mapillary", "config", "all", "mess", "without_psm", "shapes", "mess_cwfid"),
]
STANDARD = {
    "ade150": "openvocab_ade20k_panoptic_val",
    "ade847": "openvocab_ade20k_full_sem_seg_val",
    "ctx459": "openvocab_pascal_ctx459_sem_seg_val",
    "ctx59": "openvocab_pascal_ctx59_sem_seg_val",
    "pc20": "openvocab_pascal20_sem_seg_val",
}


def bash(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder`` after both scripts were sourced, undefined names forbidden."""
    scripts = [shlex.quote(str(REPOSITORY / f"eval_{name}.sh")) for name in ("all", "mask_acc")]
    sourced = "; ".join(f"source {script}" for script in scripts)
    return subprocess.run(
        ["bash", "-u", "-c", f"{sourced}; {command}"],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def planned(call: str, folder: Path, **environment: str) -> list[list[str]]:
    """The commands that a function would run."""
    done = bash(call, folder, EVAL_DRY_RUN="1", **environment)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def option(command: list[str], key: str) -> str:
    return command[command.index(key) + 1]


@pytest.mark.parametrize("prefix", ["eval_", "eval_mask_acc_"])
def test_every_published_function_exists(prefix: str, tmp_path: Path) -> None:
    done = bash("declare -F", tmp_path)
    defined = {line.split()[-1] for line in done.stdout.splitlines()}
    assert {prefix + name for name in PUBLISHED_NAMES} <= defined


def test_ade20k_is_evaluated_by_what_is_there(tmp_path: Path) -> None:
    root = tmp_path / "data" / "ADEChallengeData2016"
    (root / "annotations_detectron2" / "validation").mkdir(parents=True)
    call, switches = f"eval_ade150 {CONFIG} '' 0 mine", "MODEL.MASK_FORMER.TEST"
    at = {"DETECTRON2_DATASETS": str(tmp_path / "data")}
    (command,) = planned(call, tmp_path, **at)
    assert option(command, "DATASETS.TEST") == "('openvocab_ade20k_sem_seg_val',)"
    assert option(command, f"{switches}.PANOPTIC_ON") == "False"
    said = bash(call, tmp_path, EVAL_DRY_RUN="1", **at).stderr
    assert "only mIoU. PQ and AP need" in said
    assert f"{root}/ade20k_panoptic_val.json, which is missing" in said

    (root / "ade20k_panoptic_val.json").touch()
    (command,) = planned(call, tmp_path, **at)
    assert option(command, "DATASETS.TEST") == f"('{STANDARD['ade150']}',)"
    assert option(command, f"{switches}.INSTANCE_ON") == "False"
    assert f"{switches}.PANOPTIC_ON" not in command

    (root / "ade20k_instance_val.json").touch()
    (command,) = planned(call, tmp_path, **at)
    assert f"{switches}.INSTANCE_ON" not in command


def test_a_function_evaluates_one_benchmark(tmp_path: Path) -> None:
    (command,) = planned(f"eval_ade847 {CONFIG} weights.pth 2 mine SEED 3", tmp_path)
    assert command[:2] == [sys.executable, str(REPOSITORY / "train_maskclippp.py")]
    assert option(command, "--config-file") == str(REPOSITORY / CONFIG)
    assert option(command, "--num-gpus") == "2"
    assert option(command, "--tag") == "mine_ade847"
    assert option(command, "MODEL.WEIGHTS") == "weights.pth"
    assert option(command, "DATASETS.TEST") == f"('{STANDARD['ade847']}',)"
    assert option(command, "MODEL.MASK_FORMER.TEST.PANOPTIC_ON") == "False"
    assert option(command, "MODEL.MASK_FORMER.TEST.INSTANCE_ON") == "False"
    assert command[-2:] == ["SEED", "3"]


def test_files_of_the_working_directory_come_first(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "configs" / "shapes", tmp_path / "configs" / "shapes")
    (command,) = planned(f"eval_ade150 {CONFIG} '' 0 mine", tmp_path)
    assert option(command, "--config-file") == CONFIG
    assert option(command, "MODEL.WEIGHTS") == ""


def test_all_are_the_five_open_vocabulary_benchmarks(tmp_path: Path) -> None:
    commands = planned(f"eval_all {CONFIG} '' 0 mine", tmp_path)
    tested = {option(c, "--tag"): option(c, "DATASETS.TEST") for c in commands}
    assert tested == {f"mine_{name}": f"('{dataset}',)" for name, dataset in STANDARD.items()}


def test_panoptic_coco_is_tested_at_its_own_size(tmp_path: Path) -> None:
    (command,) = planned(f"eval_coco {CONFIG} '' 0 mine", tmp_path)
    assert option(command, "INPUT.MIN_SIZE_TEST") == "1024"
    assert option(command, "INPUT.MAX_SIZE_TEST") == "2560"
    assert "MODEL.MASK_FORMER.TEST.PANOPTIC_ON" not in command


@pytest.mark.parametrize(("name", "masks"), [("ade150", "GTSegmentor"), ("coco", "PanGTSegmentor")])
def test_mask_accuracy_takes_true_masks(name: str, masks: str, tmp_path: Path) -> None:
    (command,) = planned(f"eval_mask_acc_{name} {CONFIG} '' 0 mine", tmp_path)
    assert option(command, "MODEL.MASKCLIPPP.TEST.MASK_ACC") == "True"
    assert option(command, "MODEL.MASKCLIPPP.SEGMENTOR.NAME") == masks
    assert option(command, "MODEL.MASKCLIPPP.TEST.ENSEMBLE_ON") == "False"
    assert option(command, "MODEL.MASKCLIPPP.VISUAL_ENCODER_F.NAME") == "DummyVisualEncoder"
    assert "_mask-acc_" in option(command, "--tag")


def test_mess_is_22_runs(tmp_path: Path) -> None:
    commands = planned(f"eval_mask_acc_mess {CONFIG} '' 0 mine", tmp_path)
    assert len(commands) == 22
    (paxray,) = [c for c in commands if option(c, "--tag").endswith("paxray")]
    assert option(paxray, "DATASETS.TEST").count("'paxray_sem_seg_test_") == 4


def test_alignment_can_be_left_out(tmp_path: Path) -> None:
    (command,) = planned(f"eval_ade150 {CONFIG} '' 0 mine", tmp_path, EVAL_WITHOUT_PSM="1")
    assert option(command, "MODEL.MASKCLIPPP.PSM.NAME") == "DummyPSM"
    assert option(command, "--tag") == "mine_without-psm_ade150"
    assert planned(f"eval_without_psm {CONFIG} '' 0 mine", tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (f"eval_ade150 {CONFIG} weights.pth", "usage"),
        (f"eval_ade150 {CONFIG} weights.pth two mine", "usage"),
        (f"eval_ade150 {CONFIG} weights.pth 0 mine SEED", "usage"),
        (f"eval_ade150 {CONFIG} weights.pth 0 ''", "TAG names the folder"),
        (f"eval_ade150 {CONFIG} weights.pth 0 a/b", "TAG names the folder"),
        (f"eval_ade150 {CONFIG} weights.pth 0 default", "TAG names the folder"),
        ("eval_ade150 none.yaml weights.pth 0 mine", "there is no config none.yaml"),
    ],
)
def test_bad_arguments_run_nothing(call: str, message: str, tmp_path: Path) -> None:
    done = bash(call, tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_shapes_world_is_evaluated_and_tabulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(cache))
    write_split("val", 2, cache / "shapes_v1" / "val")
    done = bash(f"eval_mask_acc_shapes {CONFIG} '' 0 mine", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("| shapes"))
    assert "mMaskAcc" in line
    run = tmp_path / "output" / "plain_clip" / "mine_mask-acc_shapes"
    assert (run / "inference" / "shapes_val" / "mask_acc_evaluation.json").is_file()


def test_a_failed_evaluation_is_named_and_has_no_table(tmp_path: Path) -> None:
    done = bash(f"eval_shapes {CONFIG} '' 0 mine NO_SUCH_KEY 1", tmp_path)
    assert done.returncode == 1
    assert "NO_SUCH_KEY" in done.stdout + done.stderr
    assert "failed: shapes" in done.stderr
    assert "| benchmark" not in done.stdout


def test_results_of_an_earlier_run_do_not_pass_for_those_of_a_failed_one(tmp_path: Path) -> None:
    run = tmp_path / "output" / "plain_clip" / "mine_shapes"
    for folder in ("inference", "inference_TTA"):
        (run / folder / "shapes_val").mkdir(parents=True)
        (run / folder / "shapes_val" / "results.json").write_text(folder)
    assert bash(f"eval_shapes {CONFIG} '' 0 mine NO_SUCH_KEY 1", tmp_path).returncode == 1
    assert not list(run.rglob("results.json"))
    kept = sorted(file.read_text() for file in run.rglob("previous_results.json"))
    assert kept == ["inference", "inference_TTA"]


def test_a_table_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    python = tmp_path / "python"  # evaluates without results
    python.write_text(
        f'#!/bin/sh\ncase $1 in *train*) exit 0 ;; esac\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    done = bash(f"eval_shapes {CONFIG} '' 0 mine", tmp_path, PYTHON=str(python))
    assert done.returncode == 1
    assert "has no results" in done.stderr
