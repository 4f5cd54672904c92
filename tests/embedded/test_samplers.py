"""Samplers: the golden index streams, for every rank of every world size."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch.distributed as dist
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.golden_cases import cases

CASES = cases("engine_samplers")


def items(family: str) -> list[dict[str, Any]]:
    return [item for case in CASES for item in case.info[family]]


@contextmanager
def as_rank(rank: int, world: int) -> Iterator[None]:
    """This process as one rank of a world that never communicates."""
    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("item", items("training"), ids=lambda i: f"{i['size']}-{i['world']}")
def test_training_sampler_gives_the_golden_stream(item: dict[str, Any]) -> None:
    for rank, expected in enumerate(item["first_50_per_rank"]):
        with as_rank(rank, item["world"]):
            sampler = TrainingSampler(item["size"], shuffle=item["shuffle"], seed=item["seed"])
        found = itertools.islice(iter(sampler), len(expected))
        assert [int(index) for index in found] == expected


@pytest.mark.parametrize("item", items("inference"), ids=lambda i: f"{i['n']}-{i['world']}")
def test_inference_sampler_gives_the_golden_blocks(item: dict[str, Any]) -> None:
    for rank, expected in enumerate(item["indices_per_rank"]):
        with as_rank(rank, item["world"]):
            sampler = InferenceSampler(item["n"])
        assert list(sampler) == expected
        assert len(sampler) == len(expected)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("sqrt", [True, False])
def test_repeat_factors_and_their_stream_are_the_golden_ones(case: Any, sqrt: bool) -> None:
    golden = case.info["repeat_factor"]
    records = [
        {"annotations": [{"category_id": category} for category in categories]}
        for categories in golden["images_category_ids"]
    ]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        records, golden["threshold"], sqrt=sqrt
    )
    name = "sqrt" if sqrt else "no_sqrt"
    assert factors.tolist() == pytest.approx(golden[name], abs=1e-6)
    stream = iter(RepeatFactorTrainingSampler(factors, seed=golden["sampler_seed"]))
    expected = golden[f"first_50_{name}"]
    assert [int(index) for index in itertools.islice(stream, len(expected))] == expected


@pytest.mark.parametrize("item", items("random_subset"), ids=lambda i: str(i["ratio"]))
def test_random_subset_sampler_gives_the_golden_stream(item: dict[str, Any]) -> None:
    sampler = RandomSubsetTrainingSampler(
        item["size"],
        item["ratio"],
        seed_shuffle=item["seed_shuffle"],
        seed_subset=item["seed_subset"],
    )
    found = itertools.islice(iter(sampler), len(item["first_30"]))
    assert [int(index) for index in found] == item["first_30"]


def test_an_unseeded_sampler_differs_from_run_to_run() -> None:
    streams = {tuple(itertools.islice(iter(TrainingSampler(1000)), 20)) for _ in range(2)}
    assert len(streams) == 2
