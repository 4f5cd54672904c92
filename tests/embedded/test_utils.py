"""Logs, seeds, registries, memory."""

import logging
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import create_small_table, setup_logger
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.registry import Registry
from torch import nn


@pytest.fixture
def logger_name(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.node.name
    logging.getLogger(request.node.name).handlers.clear()


def test_a_logger_writes_to_terminal_and_file(
    logger_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logger(str(tmp_path), name=logger_name).info("hello")
    assert "hello" in (tmp_path / "log.txt").read_text()
    assert "hello" in capsys.readouterr().out


def test_other_ranks_write_to_their_own_file_only(
    logger_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logger(str(tmp_path), distributed_rank=1, name=logger_name).info("hello")
    assert "hello" in (tmp_path / "log.txt.rank1").read_text()
    assert capsys.readouterr().out == ""


def test_setting_up_twice_does_not_double_the_lines(logger_name: str, tmp_path: Path) -> None:
    for _ in range(2):
        logger = setup_logger(str(tmp_path), name=logger_name)
    logger.info("hello")
    assert (tmp_path / "log.txt").read_text().count("hello") == 1


def test_a_log_file_is_appended_to(logger_name: str, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("before\n")
    setup_logger(str(tmp_path / "log.txt"), name=logger_name).info("hello")
    assert (tmp_path / "log.txt").read_text().startswith("before\n")


def test_loggers_that_share_a_file_keep_their_own_names(tmp_path: Path) -> None:
    names = ("shared_file_first", "shared_file_second")
    try:
        for name in names:
            setup_logger(str(tmp_path), name=name, abbrev_name=name[-6:].upper())
        for name in names:
            logging.getLogger(f"{name}.part").info("hello")
        lines = (tmp_path / "log.txt").read_text().splitlines()
        found = [line.split()[2].rstrip("]:") for line in lines]
        assert found == ["_FIRST.part", "SECOND.part"]
    finally:
        for name in names:
            logging.getLogger(name).handlers.clear()


def test_a_small_table_shows_names_and_numbers() -> None:
    table = create_small_table({"mIoU": 12.5})
    assert "mIoU" in table
    assert "12.500" in table


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_a_seed_determines_all_generators() -> None:
    seed_all_rng(5)
    first = draws()
    seed_all_rng(5)
    assert draws() == first


def test_without_a_seed_runs_differ() -> None:
    seed_all_rng()
    first = draws()
    seed_all_rng()
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_the_environment_report_names_torch() -> None:
    assert torch.__version__.split("+")[0] in collect_env_info()


def test_registries_know_their_names() -> None:
    registry = Registry("THINGS")

    @registry.register()
    class Thing:
        pass

    assert registry.get("Thing") is Thing
    with pytest.raises(KeyError, match="Nothing"):
        registry.get("Nothing")
    with pytest.raises(AssertionError, match="already registered"):
        registry.register(Thing)


def test_a_model_is_built_by_its_registered_name() -> None:
    class RegisteredForThisTest(nn.Linear):
        def __init__(self, cfg: object) -> None:
            super().__init__(2, 2)

    META_ARCH_REGISTRY.register(RegisteredForThisTest)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RegisteredForThisTest"
    cfg.MODEL.DEVICE = "cpu"
    assert isinstance(build_model(cfg), RegisteredForThisTest)


def test_work_that_fits_into_memory_is_done_once() -> None:
    calls = []

    def work(value: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return value + 1

    assert retry_if_cuda_oom(work)(torch.ones(1)).item() == 2
    assert len(calls) == 1


def test_other_errors_are_not_retried() -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        retry_if_cuda_oom(work)()
    assert len(calls) == 1
