"""Wrong commands end with one clear line and status 2, before anything is written."""

import argparse
import socket
from datetime import datetime
from pathlib import Path

import pytest
import torch

import train_maskclippp
from maskclippp.detectron2_engine import is_embedded
from maskclippp.engine.arguments import argument_parser
from maskclippp.engine.setup import build_config
from maskclippp.errors import InputError
from tests.golden_cases import cases

TRAIN_SET = ("DATASETS.TRAIN", "('openvocab_coco_2017_train_panoptic_with_sem_seg',)")
VALID = ("--num-gpus", "0", *TRAIN_SET)
GENERATED = ("MODEL.MASKCLIPPP.TRAIN_MASKS", "segmentor")


def parse(*arguments: str) -> argparse.Namespace:
    return argument_parser().parse_args(arguments)


def failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """What the command says before it ends with status 2."""
    monkeypatch.setattr("sys.argv", ["train_maskclippp.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        train_maskclippp.command_line()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--num-gpus", "0", *TRAIN_SET, "SOLVER.MAX_ITERS", "3"], ["MAX_ITERS", "MAX_ITER"]),
        (["--num-gpus", "0", *TRAIN_SET, "SOLVER.MAX_ITER", "many"], ["SOLVER.MAX_ITER", "many"]),
        (["--num-gpus", "0", *TRAIN_SET, "SOLVER.MAX_ITER"], ["odd length"]),
        (["--num-gpus", "0", "--config-file", "absent.yaml"], ["absent.yaml"]),
        (["--num-gpus", "0"], ["DATASETS.TRAIN is empty"]),
        ([*VALID, "SOLVER.MAX_ITER", "0"], ["SOLVER.MAX_ITER is 0", "--eval-only"]),
        ([*VALID, "SEED", "4294967296"], ["SEED: expected a number below 2**32"]),
        ([*VALID, "TEST.BATCH_SIZE", "0"], ["TEST.BATCH_SIZE: expected a positive number"]),
        ([*VALID, "--num-machines", "2"], ["--num-gpus 0", "--num-machines 2", "MODEL.DEVICE cpu"]),
        ([*VALID, "--dist-url", "foo"], ["--dist-url foo", "tcp://HOST:PORT"]),
        ([*VALID, "--dist-url", "tcp://host:70000"], ["--dist-url tcp://host:70000"]),
        ([*VALID, "--machine-rank", "1"], ["--machine-rank 1"]),
        ([*TRAIN_SET, "--num-gpus", "-2"], ["--num-gpus -2"]),
        (["--num-gpus", "0", "--eval-only"], ["DATASETS.TEST is empty"]),
        (
            ["--num-gpus", "0", *TRAIN_SET, "TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "()"],
            ["TEST.AUG.MIN_SIZES"],
        ),
        (
            [*VALID, *GENERATED, "MODEL.MASKCLIPPP.SEGMENTOR.NAME", "GTSegmentor"],
            ["TRAIN_MASKS segmentor", "SEGMENTOR.NAME GTSegmentor", "set TRAIN_MASKS ground_truth"],
        ),
        (
            [*VALID, *GENERATED, "MODEL.MASKCLIPPP.SEGMENTOR.NAME", "OfflineSegmentor"],
            ["TRAIN_MASKS segmentor", "OfflineSegmentor", "masks of whole images"],
        ),
        (
            ["--num-gpus", "0", "DATASETS.TRAIN", "('openvocab_coco_2017_train_panoptic',)"],
            ["DATASETS.TRAIN", "openvocab_coco_2017_train_panoptic_with_sem_seg"],
        ),
    ],
)
def test_wrong_arguments_are_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    expected: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    error = failure(monkeypatch, capsys, *arguments)
    for text in expected:
        assert text in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "--resume --tag a --num-gpus 0 SEED -1 SOLVER.MAX_ITER 3",
        "SEED -1 --resume SOLVER.MAX_ITER 3 --num-gpus=0 --tag a",
        "SEED -1 SOLVER.MAX_ITER 3 --num-gpus 0 --tag=a --resume",
        "--num-g 0 SEED -1 --tag a SOLVER.MAX_ITER 3 --res",
    ],
)
def test_flags_may_stand_anywhere(arguments: str) -> None:
    args = parse(*arguments.split())
    assert (args.resume, args.tag, args.num_gpus) == (True, "a", 0)
    assert args.opts == ["SEED", "-1", "SOLVER.MAX_ITER", "3"]


def test_resume_may_be_automatic() -> None:
    args = parse("SOLVER.MAX_ITER", "3", "--resume", "auto", "--eval-only")
    assert (args.resume, args.eval_only, args.opts) == ("auto", True, ["SOLVER.MAX_ITER", "3"])
    assert parse("--resume", "SOLVER.MAX_ITER", "3").resume is True
    assert parse("SOLVER.MAX_ITER", "3").resume is False


def test_a_port_in_use_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        arguments = ("--num-gpus", "2", "--dist-url", address, "MODEL.DEVICE", "cpu")
        error = failure(monkeypatch, capsys, *arguments, *TRAIN_SET)
    assert address in error
    assert "choose another one" in error


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine with CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_cuda")
def test_missing_cuda_is_an_error_with_two_remedies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failure(monkeypatch, capsys, "--num-gpus", "1", *TRAIN_SET)
    assert "--num-gpus 1, but CUDA is not available" in error
    assert "--num-gpus 0" in error
    assert "--num-gpus N MODEL.DEVICE cpu" in error


def test_more_gpus_than_present_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="--num-gpus 3, but there are 2 CUDA devices"):
        build_config(parse("--num-gpus", "3", *TRAIN_SET))


@pytest.mark.skipif(not is_embedded(), reason="detectron2 itself has it")
def test_missing_precise_batch_norm_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failure(monkeypatch, capsys, *VALID, "TEST.PRECISE_BN.ENABLED", "True")
    assert "TEST.PRECISE_BN.ENABLED needs an installed detectron2" in error


def test_no_gpus_means_cpu() -> None:
    assert build_config(parse(*VALID)).MODEL.DEVICE == "cpu"


@pytest.mark.usefixtures("no_cuda")
def test_several_processes_may_share_the_cpu() -> None:
    args = parse("--num-gpus", "2", *TRAIN_SET, "MODEL.DEVICE", "cpu")
    assert build_config(args).MODEL.DEVICE == "cpu"


def test_output_goes_to_a_folder_named_after_config_and_tag(tmp_path: Path) -> None:
    config = tmp_path / "my_config.yaml"
    config.write_text("SOLVER: {MAX_ITER: 3}")
    args = parse("--config-file", str(config), "--tag", "first", *VALID)
    cfg = build_config(args)
    assert cfg.OUTPUT_DIR == "output/my_config/first"
    assert cfg.SOLVER.MAX_ITER == 3


@pytest.mark.parametrize("tag", ["../../elsewhere", "a/../../b", "/tmp/run", ""])
def test_tag_cannot_leave_the_folder_of_the_config(tag: str) -> None:
    with pytest.raises(ValueError, match=r"--tag names a folder in output/.*OUTPUT_DIR"):
        build_config(parse("--tag", tag, *VALID))


def test_tag_defaults_to_date_and_time_for_all_processes() -> None:
    args = parse(*VALID)
    cfg = build_config(args)
    started = datetime.strptime(args.tag, "%Y%m%d-%H%M%S")
    assert abs((datetime.now() - started).total_seconds()) < 60
    assert Path(cfg.OUTPUT_DIR).name == args.tag


def test_output_folder_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    args = parse(*VALID, "OUTPUT_DIR", str(tmp_path / "file" / "run"))
    with pytest.raises(SystemExit):
        train_maskclippp.main(args)
    assert f"OUTPUT_DIR {tmp_path}/file/run cannot be created" in capsys.readouterr().err


def test_options_may_change_the_output_folder(tmp_path: Path) -> None:
    cfg = build_config(parse(*VALID, "OUTPUT_DIR", str(tmp_path)))
    assert str(tmp_path) == cfg.OUTPUT_DIR


@pytest.mark.parametrize("command", cases("engine_argument_parser")[0].info["parsed"].items())
def test_arguments_are_those_of_detectron2_and_tag(command: tuple[str, dict]) -> None:
    text, golden = command
    arguments = [] if text == "(none)" else text.split()
    if "exit_code" in golden:
        with pytest.raises(SystemExit) as stopped:
            parse(*arguments)
        assert stopped.value.code == golden["exit_code"]
        return
    parsed = vars(parse(*arguments))
    if golden["opts"][-1:] == ["--eval-only"]:  # ours accepts flags behind the pairs
        golden = {**golden, "eval_only": True, "opts": golden["opts"][:-1]}
    if "--num-gpus" not in arguments:  # ours depends on the machine
        golden = {**golden, "num_gpus": None}
    assert {key: parsed[key] for key in golden} == golden
    assert parsed["tag"] == "default"


@pytest.mark.parametrize("tag", [("--tag", "default"), ("--tag=default",)])
def test_a_run_may_be_called_default(tag: tuple[str, ...]) -> None:
    assert build_config(parse(*VALID, *tag)).OUTPUT_DIR.endswith("/default")


def test_the_maximum_norm_may_limit_gradients() -> None:
    cfg = build_config(parse(*VALID, "SOLVER.CLIP_GRADIENTS.NORM_TYPE", ".inf"))
    assert float("inf") == cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE
    for value in (".nan", "-.inf"):
        with pytest.raises(InputError):
            build_config(parse(*VALID, "SOLVER.CLIP_GRADIENTS.NORM_TYPE", value))
