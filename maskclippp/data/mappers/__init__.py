"""Mappers: from a dataset record to what the model takes, in training and in evaluation."""

from maskclippp.data.mappers.evaluation import EvaluationMapper
from maskclippp.data.mappers.train import TRAIN_MAPPER_REGISTRY, TrainMapper, build_train_mapper

__all__ = ["TRAIN_MAPPER_REGISTRY", "EvaluationMapper", "TrainMapper", "build_train_mapper"]
