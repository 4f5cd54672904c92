"""The checkpointer of a training run."""

import logging
import pickle
from typing import Any

import torch
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

__all__ = ["DetectionCheckpointer"]


class DetectionCheckpointer(Checkpointer):
    """fvcore's checkpointer, but files are read as data and never execute code.

    Args:
        model: a model, possibly in a DDP wrapper.
        save_dir: folder of the checkpoints and of ``last_checkpoint``.
        save_to_disk: None: only the main process writes.
        checkpointables: further objects with ``state_dict`` and ``load_state_dict``.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint into the model and the checkpointables; ``""`` loads nothing.

        Returns:
            The rest of the file's content, such as ``iteration``.

        Raises:
            ValueError: the file is a pickle, or contains more than tensors and plain containers.
        """
        logger = logging.getLogger(__name__)
        logger.info("[DetectionCheckpointer] Loading from %s ...", path)
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            raise ValueError(
                f"{filename} is a pickle, which can execute code when it is read; "
                "convert it to a .pth state dict first"
            )
        try:
            loaded = torch.load(filename, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{filename} is damaged, or holds objects other than tensors and plain containers; "
                "it was not loaded, because reading them could execute code"
            ) from error
        return loaded if "model" in loaded else {"model": loaded}
