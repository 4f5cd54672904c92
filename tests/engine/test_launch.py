"""One run, whoever starts its processes: detectron2's launcher, torchrun or SLURM."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from maskclippp.data.shapes import dataset as shapes
from maskclippp.engine.layout import (
    check_arguments,
    check_own_launch,
    external_layout,
    one_launcher_per_machine,
)
from maskclippp.errors import INPUT_ERROR_STATUS, InputError
from maskclippp.files.lock import LOCK_NAME, folder_lock
from tests.engine.test_train_shapes import CONFIG, REPOSITORY, run_main

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
# A batch script and the shell that salloc opens have the variables of a first task, but no step.
SBATCH = {
    **{"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0", "SLURM_NNODES": "1"},
    **{"SLURM_JOB_ID": "123", "SLURM_NODELIST": "node1"},
}
SLURM = {
    **{**SBATCH, "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_STEP_ID": "0"},
    **{"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "node1"},
}
# One process per machine, with the rank of the machine.
KUBEFLOW = {"RANK": "1", "WORLD_SIZE": "2"}
TWO_NODES = {
    **{**SLURM, "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "MASTER_ADDR": "n7"},
    **{"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"},
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (TORCHRUN, (5, 8, 1, 4, "env://")),
        (KUBEFLOW, (1, 2, 0, 1, "env://")),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        (SLURM, (3, 4, 3, 4, "tcp://127.0.0.1:20123")),
        (
            {**SLURM, "SLURM_STEP_NUM_NODES": "2", "MASTER_ADDR": "n7"},
            (3, 4, 3, 2, "tcp://n7:20123"),
        ),
        (TWO_NODES, (1, 2, 0, 1, "tcp://n7:20123")),
        ({**SLURM, "MASTER_PORT": "29500"}, (3, 4, 3, 4, "tcp://127.0.0.1:29500")),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({**SLURM, "SLURM_STEP_ID": "2"}, (3, 4, 3, 4, "tcp://127.0.0.1:20125")),
        ({**SLURM, **TORCHRUN}, (5, 8, 1, 4, "env://")),
        (SBATCH, None),
        ({**SBATCH, "SLURM_STEP_ID": "4294967290"}, None),  # the shell that salloc opens
        ({**SBATCH, **TORCHRUN}, (5, 8, 1, 4, "env://")),
    ],
)
def test_the_environment_determines_the_layout(
    environment: dict[str, str], expected: tuple | None
) -> None:
    assert external_layout(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({**TORCHRUN, "RANK": "first"}, "incomplete or invalid.*first"),
        (
            {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0"},
            "incomplete or invalid.*SLURM_JOB_ID",
        ),
        ({**SLURM, "SLURM_STEP_NUM_NODES": "3"}, "4 tasks evenly over 3 nodes"),
        (
            {**SLURM, "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "3,1"},
            "4 tasks evenly over 2 nodes",
        ),
        ({**TORCHRUN, "RANK": "8"}, "RANK.*WORLD_SIZE.*8 of 8"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK.*-1 of 8"),
        ({**TORCHRUN, "LOCAL_RANK": "4"}, "LOCAL_RANK.*4 of 4"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, "LOCAL_RANK.*LOCAL_WORLD_SIZE.*1 of 0"),
        ({**TORCHRUN, "WORLD_SIZE": "6"}, "6 processes cannot be spread evenly, 4 per machine"),
    ],
)
def test_an_invalid_environment_is_an_error(environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        external_layout(environment)


@pytest.mark.parametrize(("num_gpus", "num_machines"), [(0, 1), (1, 1), (4, 1), (4, 2), (1, 2)])
def test_arguments_may_agree_with_the_launcher(num_gpus: int, num_machines: int) -> None:
    layout = external_layout(TORCHRUN)
    assert layout is not None
    check_arguments(Namespace(num_gpus=num_gpus, num_machines=num_machines), layout)


@pytest.mark.parametrize(("num_gpus", "num_machines"), [(8, 1), (2, 1), (4, 3)])
def test_arguments_that_contradict_the_launcher_are_errors(
    num_gpus: int, num_machines: int
) -> None:
    layout = external_layout(TORCHRUN)
    assert layout is not None
    message = r"contradicts the launcher, which started .*LOCAL_WORLD_SIZE.*leave out"
    with pytest.raises(InputError, match=message):
        check_arguments(Namespace(num_gpus=num_gpus, num_machines=num_machines), layout)


DEFAULT = "tcp://127.0.0.1:50000"


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        (KUBEFLOW, (8, 1, 0, DEFAULT), (8, 2, 1, "env://")),
        (KUBEFLOW, (1, 2, 1, "tcp://n1:9"), (1, 2, 1, "tcp://n1:9")),
        (TWO_NODES, (8, 2, 1, "tcp://n1:9"), (8, 2, 1, "tcp://n1:9")),
        (TWO_NODES, (8, 1, 0, DEFAULT), (8, 2, 1, "tcp://n7:20123")),
        (TWO_NODES, (1, 1, 0, DEFAULT), None),
        (TWO_NODES, (0, 1, 0, DEFAULT), None),
        (TORCHRUN, (4, 2, 1, DEFAULT), None),
    ],
)
def test_one_process_per_machine_may_start_one_per_gpu(
    environment: dict[str, str],
    given: tuple[int, int, int, str],
    expected: tuple[int, int, int, str] | None,
) -> None:
    """Of the given arguments, those left at their defaults are filled in."""
    layout = external_layout(environment)
    assert layout is not None
    names = ("num_gpus", "num_machines", "machine_rank", "dist_url")
    args = Namespace(**dict(zip(names, given, strict=True)))
    check_arguments(args, layout)
    assert one_launcher_per_machine(args, layout) == (expected is not None)
    assert tuple(vars(args).values()) == (expected or given)


def test_more_machines_than_processes_are_a_contradiction() -> None:
    layout = external_layout(TWO_NODES)
    assert layout is not None
    message = "--num-machines 3 contradicts .* 2 processes.*SLURM_STEP_NUM_TASKS"
    with pytest.raises(InputError, match=message):
        check_arguments(Namespace(num_gpus=8, num_machines=3), layout)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for runs in a world of four training scenes, without those of a launcher."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKCLIPPP_CACHE", str(cache))
        shapes.write_split("train", 4, shapes.shapes_folder() / "train")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    return {**inherited, "MASKCLIPPP_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def start(
    folder: Path, environment: dict[str, str], *options: str, launcher: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a training of two steps in ``folder``; its output goes to the returned pipe."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(CONFIG)
    command = [sys.executable, *launcher, str(REPOSITORY / "train_maskclippp.py")]
    command += ["--config-file", "tiny.yaml", "--tag", "run", *options]
    return subprocess.Popen(
        [*command, "MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "2", "DATASETS.TEST", "()"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, *processes: subprocess.Popen[str]) -> Path:
    """Wait for the processes; returns the folder of their run."""
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    return folder / "output" / "tiny" / "run"


@pytest.fixture(scope="module")
def own_run(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that detectron2's launcher started."""
    folder = tmp_path_factory.mktemp("own")
    return finish(folder, start(folder, environment, "--num-gpus", "2", "--dist-url", "auto"))


def assert_same_run(first: Path, second: Path) -> None:
    """One run of two processes, with bit-identical weights."""
    weights = torch.load(first / "model_final.pth", weights_only=True)["model"]
    for name, weight in torch.load(second / "model_final.pth", weights_only=True)["model"].items():
        assert torch.equal(weights.pop(name), weight), name
    assert not weights
    assert {path.name for path in second.glob("log.txt*")} == {"log.txt", "log.txt.rank1"}
    lines = [json.loads(line) for line in (second / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1]
    assert not (second / LOCK_NAME).exists()


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.mark.processes
def test_torchrun_trains_the_same_weights(
    environment: dict[str, str], own_run: Path, tmp_path: Path
) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run = finish(tmp_path, start(tmp_path, environment, "--num-gpus", "0", launcher=launcher))
    assert_same_run(own_run, run)


@pytest.mark.processes
def test_a_worker_that_torchrun_restarts_costs_nothing(
    environment: dict[str, str], own_run: Path, tmp_path: Path
) -> None:
    """--resume auto starts, and continues after a kill."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    options = ("--num-gpus", "0", "SOLVER.CHECKPOINT_PERIOD", "1", "--resume", "auto")
    launcher += ("--max-restarts", "1")
    process = start(tmp_path, environment, *options, launcher=launcher)
    run = tmp_path / "output" / "tiny" / "run"
    while not (run / "last_checkpoint").exists():
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.001)
    owner = (run / LOCK_NAME).read_text().split()[1]  # rank 0
    os.kill(int(owner), signal.SIGKILL)
    finish(tmp_path, process)
    assert "Starting training from iteration 1" in (run / "log.txt").read_text()
    assert_same_run(own_run, run)


@pytest.mark.processes
def test_two_agents_of_torchrun_train_the_same_weights(
    environment: dict[str, str], own_run: Path, tmp_path: Path
) -> None:
    """Their rendezvous decides which of them has rank 0."""
    launcher = ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1")
    launcher += ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}")
    agents = [start(tmp_path, environment, "--num-gpus", "0", launcher=launcher) for _ in range(2)]
    assert_same_run(own_run, finish(tmp_path, *agents))


@pytest.mark.processes
def test_two_machines_train_the_same_weights(
    environment: dict[str, str], own_run: Path, tmp_path: Path
) -> None:
    address = ("--dist-url", f"tcp://127.0.0.1:{free_port()}", "--num-machines", "2")
    machines = [
        start(tmp_path, environment, "--num-gpus", "1", *address, "--machine-rank", rank)
        for rank in "10"
    ]
    assert_same_run(own_run, finish(tmp_path, *machines))


@pytest.mark.processes
def test_slurm_trains_the_same_weights(
    environment: dict[str, str], own_run: Path, tmp_path: Path
) -> None:
    common = {**environment, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    common |= {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "MASTER_PORT": free_port()}
    ranks = [{"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in ("1", "0")]
    run = finish(tmp_path, *(start(tmp_path, {**common, **rank}) for rank in ranks))
    assert_same_run(own_run, run)


@pytest.mark.processes
def test_a_folder_that_another_run_writes_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "output" / "tiny" / "run"
    folder.mkdir(parents=True)
    with folder_lock(folder):
        assert run_main(tmp_path / "cache", tmp_path) == [INPUT_ERROR_STATUS]
        assert [path.name for path in folder.iterdir()] == [LOCK_NAME]
    output = (tmp_path / "output.txt").read_text()
    assert f"error: output/tiny/run is in use: process {os.getpid()} on host" in output


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo slurm_load_ctl: down >&2; exit 1", "hostnames n7 failed .*slurm_load_ctl: down"),
        ("exit 0", "failed .it names no host.: set MASTER_ADDR"),
    ],
)
def test_a_scontrol_that_fails_is_one_sentence(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    nodes = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "n7"}
    with pytest.raises(InputError, match=message):
        external_layout({**SLURM, **nodes})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((-1, 1, 0, DEFAULT), "--num-gpus -1: expected 0"),
        ((1, 0, 0, DEFAULT), "--num-machines 0 and --machine-rank 0"),
        ((1, 2, 2, "tcp://n1:9"), "--num-machines 2 and --machine-rank 2"),
        ((1, 2, -1, "tcp://n1:9"), "--machine-rank -1"),
        ((0, 2, 0, "tcp://n1:9"), "--num-gpus 0 with --num-machines 2"),
        ((1, 2, 0, "auto"), "--dist-url auto: expected the address"),
        ((1, 2, 1, "tcp://n1:0"), "--dist-url tcp://n1:0: expected"),
        ((1, 2, 1, "tcp://n1:65536"), "--dist-url tcp://n1:65536: expected"),
    ],
)
def test_arguments_that_start_nothing_are_errors(
    given: tuple[int, int, int, str], message: str
) -> None:
    names = ("num_gpus", "num_machines", "machine_rank", "dist_url")
    with pytest.raises(InputError, match=message):
        check_own_launch(Namespace(**dict(zip(names, given, strict=True))))


@pytest.mark.parametrize("url", ["tcp://n1:65535", "tcp://n1:1"])
def test_every_port_is_taken(url: str) -> None:
    check_own_launch(Namespace(num_gpus=1, num_machines=2, machine_rank=1, dist_url=url))
