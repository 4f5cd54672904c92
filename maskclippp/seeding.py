"""Stateless randomness: every training step and every sample is seeded by its own position.

Nothing depends on how many random numbers were drawn before. A resumed run, or one with another
number of worker processes or ranks, therefore draws exactly the same numbers.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SAMPLE_STREAM, _STEP_STREAM, _STEP_RANK_STREAM = range(3)


def derive_seed(*numbers: int) -> int:
    """A well-mixed 64-bit seed from several non-negative integers."""
    low, high = np.random.SeedSequence(numbers).generate_state(2)
    return int(low) | int(high) << 32


def sample_seed(seed: int, position: int) -> int:
    """The seed of the training sample at a position in the endless stream of samples."""
    return derive_seed(_SAMPLE_STREAM, seed, position)


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch (CPU) inside the block only."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed_python_and_numpy(seed, seed)
    # torch.manual_seed would also reseed the accelerators, whose states are not restored.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seed_training_step(seed: int, iteration: int, rank: int) -> None:
    """Seed all generators for one training step.

    Python's generator gets the same seed on all ranks: it is used for choices that ranks must
    share, such as the sampled synonyms. The seeds of NumPy and PyTorch (all devices) differ.
    """
    own_seed = derive_seed(_STEP_RANK_STREAM, seed, iteration, rank)
    _seed_python_and_numpy(derive_seed(_STEP_STREAM, seed, iteration), own_seed)
    torch.manual_seed(own_seed)


def _seed_python_and_numpy(python_seed: int, numpy_seed: int) -> None:
    random.seed(python_seed)
    np.random.seed(numpy_seed % 2**32)
