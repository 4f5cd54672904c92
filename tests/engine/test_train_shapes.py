"""The real model on a small built-in world trains, is killed, resumes and evaluates."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
import torch
import torch.distributed
from detectron2.data import DatasetCatalog, MetadataCatalog

import train_maskclippp
from maskclippp.data.shapes import dataset as shapes
from maskclippp.engine.arguments import argument_parser
from tests.engine.processes import run_in_processes
from tests.engine.test_resume import KILLED, assert_same_final_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path("inference", "shapes_val", "results.json")
CONFIG = """
MODEL:
  META_ARCHITECTURE: MaskCLIPpp
  DEVICE: cpu
  MASKCLIPPP:
    VISUAL_ENCODER:
      NAME: CLIPConvNeXt
      MODEL_NAME: shapes_convnext
      PRETRAINED: random
      OUT_FEATURES: [m_embs, p_embs]
      FINETUNE_TYPE: all
      SIZE_DIVISIBILITY: 32
      MASK_PRIOR_BEG: 5
    TEXT_ENCODER: {NAME: CLIPTextEncoder, MODEL_NAME: shapes_convnext, PRETRAINED: random}
    TEMPLATES: t1
    PSM: {NAME: PseudoTextPSM, IN_FEATURES: [p_embs], CORR_WIDTH: 64, HIDDEN_DROPOUT_PROB: 0.1}
    CRITERION: {BALANCE_CLS: True}
    SEGMENTOR: {NAME: PanGTSegmentor}
    TEST: {MASK_ACC: True}
DATASETS: {TRAIN: [shapes_train], TEST: [shapes_val]}
INPUT: {FORMAT: RGB, DATASET_MAPPER_NAME: coco_panoptic_lsj, IMAGE_SIZE: 64, MIN_SIZE_TEST: 64}
DATALOADER: {NUM_WORKERS: 0}
SOLVER:
  IMS_PER_BATCH: 2
  BASE_LR: 0.001
  VISUAL_ENCODER_MULTIPLIER: 1.0
  WARMUP_ITERS: 0
  MAX_ITER: 8
  CHECKPOINT_PERIOD: 4
TEST: {EVAL_PERIOD: 5}
SEED: 5
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with a world of six scenes to train on and two to test on.

    Two training scenes have no annotated segment.
    """
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKCLIPPP_CACHE", str(cache))
        folder = shapes.shapes_folder()
    shapes.write_split("train", 6, folder / "train")
    shapes.write_split("val", 2, folder / "val")
    file = folder / "train" / "panoptic.json"
    content = json.loads(file.read_text())
    for index in (1, 4):
        content["annotations"][index]["segments_info"] = []
    file.write_text(json.dumps(content))
    return cache


def run_main(
    cache: Path,
    folder: Path,
    *arguments: str,
    options: tuple[str, ...] = (),
    kill_at: str | None = None,
    world_size: int = 1,
) -> list[int]:
    """Run the command's main function in ``folder``; a SIGKILL comes when a file appears."""
    (folder / "tiny.yaml").write_text(CONFIG)
    command = ["--config-file", "tiny.yaml", "--num-gpus", str(world_size), "--tag", "run"]
    return run_in_processes(
        _main,
        cache,
        folder,
        [*command, *arguments, *options],
        kill_at,
        f"rendezvous_{uuid.uuid4()}",
        world_size=world_size,
    )


def _main(
    cache: Path,
    folder: Path,
    arguments: list[str],
    kill_at: str | None,
    rendezvous: str,
    *,
    rank: int,
    world_size: int,
) -> None:
    os.environ["MASKCLIPPP_CACHE"] = str(cache)
    for split in shapes.SPLIT_SIZES:
        DatasetCatalog.remove(f"shapes_{split}")
        MetadataCatalog.remove(f"shapes_{split}")
    shapes.register_shapes()
    os.chdir(folder)
    log = os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    if world_size > 1:
        init_method = f"file://{folder / rendezvous}"
        torch.distributed.init_process_group(
            "gloo", init_method=init_method, rank=rank, world_size=world_size
        )
    if kill_at is not None:
        file = Path("output", "tiny", "run", kill_at)
        threading.Thread(target=_kill_when_there_is, args=(file,), daemon=True).start()
    train_maskclippp.main(argument_parser().parse_args(arguments))


def _kill_when_there_is(file: Path) -> None:
    while not file.exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole_run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_main(cache, folder) == [0], (folder / "output.txt").read_text()
    return folder / "output" / "tiny" / "run"


def test_run_directory_is_complete(whole_run: Path) -> None:
    names = {path.name.partition(".tfevents")[0] for path in whole_run.iterdir()}
    assert names == {
        *("config.yaml", "log.txt", "metrics.json", "events.out", "last_checkpoint", "inference"),
        *("model_0000003.pth", "model_0000007.pth", "model_final.pth", "run_id"),
    }
    suffixes = {path.suffix for path in (whole_run / "inference" / "shapes_val").iterdir()}
    assert {".json", ".csv"} <= suffixes


def test_only_trained_parts_are_in_the_checkpoint(whole_run: Path) -> None:
    model = torch.load(whole_run / "model_final.pth", weights_only=True)["model"]
    assert {key.partition(".")[0] for key in model} == {"visual_encoder", "psm"}


@pytest.mark.parametrize("world_size", [1, 2])
def test_killed_and_resumed_run_equals_uninterrupted_one(
    cache: Path, whole_run: Path, tmp_path: Path, world_size: int
) -> None:
    whole = whole_run
    if world_size > 1:
        folder = tmp_path / "whole"
        folder.mkdir()
        assert run_main(cache, folder, world_size=world_size) == [0] * world_size
        whole = folder / "output" / "tiny" / "run"
    codes = run_main(cache, tmp_path, kill_at="last_checkpoint", world_size=world_size)
    parts = tmp_path / "output" / "tiny" / "run"
    assert codes[0] == KILLED
    assert not (parts / "model_final.pth").exists()
    assert run_main(cache, tmp_path, "--resume", world_size=world_size) == [0] * world_size
    assert "Starting training from iteration 4" in (parts / "log.txt").read_text()
    assert_same_final_checkpoint(whole, parts)


def test_every_evaluation_is_logged_in_one_table(whole_run: Path) -> None:
    log = (whole_run / "log.txt").read_text()
    tables = log.count("Evaluation results for shapes_val")
    assert tables == log.count("Start inference on") > 0
    assert tables == sum("copypaste: mMaskAcc" in line for line in log.splitlines())


@pytest.mark.parametrize("how", ["--resume", "MODEL.WEIGHTS"])
def test_evaluation_alone_gives_the_results_of_the_run(
    cache: Path, whole_run: Path, tmp_path: Path, how: str
) -> None:
    weights = ("MODEL.WEIGHTS", str(whole_run / "model_final.pth"))
    arguments = ("--eval-only", "--resume") if how == "--resume" else ("--eval-only",)
    options = ("OUTPUT_DIR", str(whole_run)) if how == "--resume" else weights
    expected = json.loads((whole_run / RESULTS).read_text())
    (whole_run / RESULTS).unlink(missing_ok=how == "--resume")
    assert run_main(cache, tmp_path, *arguments, options=options) == [0]
    folder = whole_run if how == "--resume" else tmp_path / "output" / "tiny" / "run"
    assert json.loads((folder / RESULTS).read_text()) == expected
    (whole_run / RESULTS).write_text(json.dumps(expected))


def test_two_processes_train_like_one(cache: Path, tmp_path: Path) -> None:
    options = (
        *("MODEL.MASKCLIPPP.PSM.HIDDEN_DROPOUT_PROB", "0.0", "SOLVER.OPTIMIZER", "SGD"),
        *("SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0", "SOLVER.IMS_PER_BATCH", "4"),
        *("SOLVER.BASE_LR", "0.01", "SOLVER.WEIGHT_DECAY", "0.0", "DATASETS.TEST", "()"),
        *("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm"),
    )
    weights = []
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        folder.mkdir()
        codes = run_main(cache, folder, options=options, world_size=world_size)
        assert codes == [0] * world_size, (folder / "output.txt").read_text()
        checkpoint = torch.load(folder / "output" / "tiny" / "run" / "model_final.pth")
        weights.append(checkpoint["model"])
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-6, msg=name)


def test_command_trains_with_two_processes_from_any_folder(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    finished = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "train_maskclippp.py")),
            *("--config-file", "tiny.yaml", "--num-gpus", "2", "--dist-url", "auto"),
            *("--tag", "first", "SOLVER.MAX_ITER", "2"),
        ],
        cwd=tmp_path,
        env={**os.environ, "MASKCLIPPP_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    folder = tmp_path / "output" / "tiny" / "first"
    assert (folder / "model_final.pth").exists()
    assert (folder / "log.txt.rank1").exists()
    assert (folder / RESULTS).exists()
