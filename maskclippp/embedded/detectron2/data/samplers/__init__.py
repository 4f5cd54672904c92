"""Which records a process reads, and in which order."""

from detectron2.data.samplers.inference import InferenceSampler
from detectron2.data.samplers.training import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)

__all__ = [
    "InferenceSampler",
    "RandomSubsetTrainingSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]
