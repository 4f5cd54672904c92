"""Training and evaluation of configured models."""

from maskclippp.engine.trainer import Trainer

__all__ = ["Trainer"]
