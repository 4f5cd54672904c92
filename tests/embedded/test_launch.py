"""Launching real processes, and what they say to each other."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm

from tests.embedded import processes


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module", autouse=True)
def _processes_on_the_cpu() -> Iterator[None]:
    """Two processes cannot share the one GPU of a small machine; children inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have reported all they did."""
    path = tmp_path_factory.mktemp("two")
    launch(processes.do_everything, 2, dist_url="auto", args=(str(path),))
    return path


@pytest.fixture
def two(folder: Path) -> list[dict[str, Any]]:
    return processes.reports(folder)


def test_processes_know_their_place(two: list[dict[str, Any]]) -> None:
    assert [report["rank"] for report in two] == [0, 1]
    assert [report["local_rank"] for report in two] == [0, 1]
    assert [report["main"] for report in two] == [True, False]
    assert {report["world"] for report in two} == {2}


def test_processes_without_gpus_talk_by_gloo(two: list[dict[str, Any]]) -> None:
    assert {report["backend"] for report in two} == {"gloo"}


def test_all_gather_gives_everything_to_everyone(two: list[dict[str, Any]]) -> None:
    everything = [{"rank": 0, "text": ""}, {"rank": 1, "text": "x"}]
    assert [report["all_gather"] for report in two] == [everything, everything]


def test_gather_gives_everything_to_rank_0(two: list[dict[str, Any]]) -> None:
    assert [report["gather"] for report in two] == [[[0], [1]], []]


def test_shared_seed_is_shared(two: list[dict[str, Any]]) -> None:
    assert two[0]["seed"] == two[1]["seed"]


def test_two_machines_form_one_world(tmp_path: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"

    def machine(rank: int) -> None:
        launch(
            processes.report_place,
            1,
            num_machines=2,
            machine_rank=rank,
            dist_url=url,
            args=(str(tmp_path),),
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(machine, range(2)))
    reports = processes.reports(tmp_path)
    assert [report["rank"] for report in reports] == [0, 1]
    assert [report["local_rank"] for report in reports] == [0, 0]


def test_each_rank_logs_to_its_own_file(folder: Path) -> None:
    logs = [(folder / "output" / name).read_text() for name in ("log.txt", "log.txt.rank1")]
    assert "Rank of current process: 0. World size: 2" in logs[0]
    assert "Rank of current process: 1. World size: 2" in logs[1]


def test_each_rank_draws_its_own_numbers(two: list[dict[str, Any]]) -> None:
    first, second = (report["draws"] for report in two)
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_evaluation_is_shared_and_only_rank_0_has_the_results(two: list[dict[str, Any]]) -> None:
    assert two[0]["results"] == {"seen": [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18]]}
    assert two[1]["results"] == {}


def test_a_failing_process_fails_the_launch(tmp_path: Path) -> None:
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="rank 1 has no luck"):
        launch(processes.fail_on_second, 2, dist_url="auto", args=(str(tmp_path),))


@pytest.mark.parametrize("count", [0, 1])
def test_one_process_is_this_process(count: int) -> None:
    seen: list[Any] = []
    assert launch(lambda: seen.append((os.getpid(), comm.get_world_size())), count) is None
    assert seen == [(os.getpid(), 1)]
    assert not torch.distributed.is_initialized()


def test_a_port_is_chosen_on_one_machine_only() -> None:
    with pytest.raises(AssertionError):
        launch(processes.report_place, 1, num_machines=2, dist_url="auto", args=("unused",))


def test_communication_without_other_processes() -> None:
    assert comm.all_gather("a") == comm.gather("a") == ["a"]
    assert (comm.get_world_size(), comm.get_rank(), comm.get_local_rank()) == (1, 0, 0)
    assert comm.is_main_process()
    comm.synchronize()
