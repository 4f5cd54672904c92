"""The registry of train mappers, by the names used in INPUT.DATASET_MAPPER_NAME."""

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

from maskclippp.data.mappers.common import Mapper
from maskclippp.errors import InputError

TRAIN_MAPPER_REGISTRY = Registry("TRAIN_MAPPER")
"""Factories ``(cfg) -> mapper``."""


def build_train_mapper(cfg: CfgNode) -> Mapper:
    """The train mapper that the config names; a ValueError lists the valid names."""
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in TRAIN_MAPPER_REGISTRY:
        names = sorted(entry for entry, _ in TRAIN_MAPPER_REGISTRY)
        raise InputError(f"INPUT.DATASET_MAPPER_NAME: {name!r} is not one of {names}")
    mapper: Mapper = TRAIN_MAPPER_REGISTRY.get(name)(cfg)
    return mapper
