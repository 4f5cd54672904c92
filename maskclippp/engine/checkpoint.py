"""Checkpoints: written atomically, and loaded with a report of what did not fit."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from maskclippp.errors import MissingFileError, UnreadableFileError
from maskclippp.files.atomic import atomic_write
from maskclippp.files.state_dicts import compare, describe_keys
from maskclippp.files.weights import (
    CheckpointError,
    UnreadableCheckpointError,
    read_checkpoint,
    strip_common_prefix,
)

logger = logging.getLogger(__name__)

_PERIODIC_NAME = re.compile(r"model_(\d{7}|final)\.pth")


class Checkpointer(DetectionCheckpointer):
    """Saves and loads the model and the trainer, in detectron2's file format.

    A model may list the first components of the state-dict keys of its trained parts in
    ``checkpoint_prefixes``; then only these are saved, and only these are reported if missing.
    """

    def save(self, name: str, **extra: Any) -> None:
        """Write ``<name>.pth`` (model, checkpointables, ``extra``) and tag it as the last one.

        Raises:
            UnreadableFileError: the file cannot be written; earlier checkpoints are unchanged.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        state = unwrapped(self.model).state_dict()
        content: dict[str, Any] = {"model": dict(_with_prefixes(state, self._prefixes()))}
        content.update((key, part.state_dict()) for key, part in self.checkpointables.items())
        content.update(extra)
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", path)
        try:
            with atomic_write(path) as file:
                torch.save(content, file)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter on a full disk
            raise UnreadableFileError(
                f"checkpoint {path} cannot be written (is the disk full?): {error}. Earlier "
                "checkpoints are unchanged: free some space and continue with --resume"
            ) from error
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the newest checkpoint to ``last_checkpoint``."""
        with atomic_write(Path(self.save_dir) / "last_checkpoint") as file:
            file.write(last_filename_basename.encode())

    def has_checkpoint(self) -> bool:
        """Whether the folder has a checkpoint."""
        return bool(self.resume_candidates())

    def get_checkpoint_file(self) -> str:
        """The path of the newest checkpoint; empty if there is none."""
        candidates = self.resume_candidates()
        return str(candidates[0]) if candidates else ""

    def resume_candidates(self) -> list[Path]:
        """The checkpoints in this folder, newest first."""
        folder = Path(self.save_dir)
        files = [file for file in folder.glob("model_*.pth") if _PERIODIC_NAME.fullmatch(file.name)]
        tag = folder / "last_checkpoint"
        last = tag.read_text().strip() if tag.is_file() else ""
        return sorted(
            files,
            key=lambda file: (file.name == last, file.stat().st_mtime_ns, file.name),
            reverse=True,
        )

    def resume_or_load(
        self, path: str, *, resume: bool = True, may_be_absent: bool = True
    ) -> dict[str, Any]:
        """Load the newest undamaged checkpoint (``resume``), else only the model from ``path``.

        Returns:
            The rest of the file's content, without model and loaded checkpointables.

        Raises:
            MissingFileError: there is neither, and ``may_be_absent`` is false.
        """
        if resume and (candidates := self.resume_candidates()):
            return self._resume(candidates)
        if not path and not may_be_absent:
            raise MissingFileError(
                f"no checkpoint in {self.save_dir}: name the run with --tag, or a file with "
                "MODEL.WEIGHTS"
            )
        if resume:
            logger.warning("no checkpoint in %s: nothing to resume", self.save_dir)
        return self.load(path, checkpointables=[])

    def load(
        self, path: str | Path, checkpointables: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Load the model and the named checkpointables (None: all), and return the rest.

        An empty path loads nothing.

        Raises:
            MissingFileError: the file does not exist.
            CheckpointError: it cannot be read safely, or nothing in it fits the model.
        """
        if not path:
            logger.info("No checkpoint given: the model keeps its initial weights.")
            return {}
        local_path = Path(self.path_manager.get_local_path(str(path)))
        return self._apply(read_checkpoint(local_path), local_path, checkpointables)

    def _resume(self, candidates: list[Path]) -> dict[str, Any]:
        path: Path | None = None
        content: dict[str, Any] = {}
        problem = ""
        try:
            path, content = self._newest_whole(candidates)
        except CheckpointError as error:
            problem = str(error)
        # All processes must raise, since the others would wait forever for one that left.
        outcomes = comm.all_gather((path.name if path else "", problem))
        problems = [text for _, text in outcomes if text]
        if problems or path is None:
            raise CheckpointError(problems[0])
        chosen = {name for name, _ in outcomes}
        if len(chosen) > 1:
            raise CheckpointError(
                f"the processes would resume from different checkpoints: {sorted(chosen)} "
                f"in {self.save_dir}; is the folder shared by all machines?"
            )
        logger.info("Resuming from %s", path)
        return self._apply(content, path, None)

    def _newest_whole(self, candidates: list[Path]) -> tuple[Path, dict[str, Any]]:
        """The first undamaged candidate and its content."""
        for path in candidates:
            try:
                return path, read_checkpoint(path)
            except UnreadableCheckpointError as error:
                logger.error("%s; trying the previous checkpoint", error)
        raise CheckpointError(
            f"cannot resume: all {len(candidates)} checkpoints in {self.save_dir} are damaged"
        )

    def _apply(
        self, content: dict[str, Any], path: Path, checkpointables: Iterable[str] | None
    ) -> dict[str, Any]:
        names = list(self.checkpointables if checkpointables is None else checkpointables)
        lacking = [name for name in names if name not in content]
        if lacking:
            raise CheckpointError(
                f"checkpoint {path} has no {' and no '.join(lacking)} state, so a run cannot be "
                "resumed from it; to start from its weights, use MODEL.WEIGHTS without --resume"
            )
        load_weights(
            unwrapped(self.model), content.pop("model"), source=path, prefixes=self._prefixes()
        )
        for name in names:
            self.checkpointables[name].load_state_dict(content.pop(name))
        return content

    def _prefixes(self) -> tuple[str, ...] | None:
        return getattr(unwrapped(self.model), "checkpoint_prefixes", None)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without its data-parallel wrapper, if it has one."""
    if isinstance(model, DistributedDataParallel | DataParallel):
        inner: nn.Module = model.module
        return inner
    return model


def load_weights(
    model: nn.Module,
    state: dict[str, Tensor],
    *,
    source: str | Path,
    prefixes: tuple[str, ...] | None = None,
) -> None:
    """Load the tensors that fit by name and shape into the model, and log the others.

    Args:
        source: where the tensors come from, for messages.
        prefixes: parts of the model that the file should contain; None: all.

    Raises:
        CheckpointError: no tensor fits.
    """
    state = strip_common_prefix(state, "module.")
    own = model.state_dict()
    found = compare(state, model)
    if not found.fitting:
        raise CheckpointError(
            f"nothing in checkpoint {source} fits the model: "
            f"it has {describe_keys(state)}; the model has {describe_keys(own)}"
        )
    model.load_state_dict(found.fitting, strict=False)
    logger.info("Loaded %d of %d tensors from %s", len(found.fitting), len(state), source)
    expected = {key for key, _ in _with_prefixes(own, prefixes)}
    problems = {
        "tensors of another shape, skipped": found.misshapen,
        "keys that the model does not have, ignored": found.unexpected,
        "keys that the file lacks, left as they were": [
            key for key in found.missing if key in expected
        ],
    }
    for problem, keys in problems.items():
        if keys:
            logger.warning("%s: %d %s: %s", source, len(keys), problem, describe_keys(keys))


def _with_prefixes(
    state: dict[str, Tensor], prefixes: tuple[str, ...] | None
) -> list[tuple[str, Tensor]]:
    return [
        (key, value)
        for key, value in state.items()
        if prefixes is None or key.partition(".")[0] in prefixes
    ]
