"""Random seeds."""

import logging
import os
import random
import time

import numpy as np
import torch

__all__ = ["seed_all_rng"]


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python, NumPy and torch; None: from time, process id and the OS's randomness."""
    if seed is None:
        entropy = (os.getpid(), time.time_ns(), int.from_bytes(os.urandom(4), "big"))
        seed = hash(entropy) % 2**31
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
