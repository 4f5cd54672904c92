"""Training and evaluation of configured models."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskclippp.engine.trainer import Trainer as Trainer

__all__ = ["Trainer"]


def __getattr__(name: str) -> Any:
    """Import the trainer when it is first used: the command line does without torch."""
    if name != "Trainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from maskclippp.engine.trainer import Trainer

    return Trainer
