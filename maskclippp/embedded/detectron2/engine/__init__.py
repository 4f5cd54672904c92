"""Starting, training, evaluating."""

from detectron2.engine.launch import DEFAULT_TIMEOUT, launch

__all__ = ["DEFAULT_TIMEOUT", "launch"]
