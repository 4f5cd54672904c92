"""Checkpoints: written atomically and sealed, and loaded only if they fit."""

import logging
import math
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from maskclippp.errors import MissingFileError, UnreadableFileError
from maskclippp.files.atomic import atomic_write, remove_leftovers
from maskclippp.files.seal import SealingWriter, read_seal
from maskclippp.files.shards import weights_in
from maskclippp.files.state_dicts import compare, describe_keys, describe_shapes, not_finite
from maskclippp.files.weights import CheckpointError, read_checkpoint

logger = logging.getLogger(__name__)

ALLOW_KEY = "MODEL.ALLOW_INCOMPLETE_WEIGHTS"
_PERIODIC_NAME = re.compile(r"model_(\d{7}|final)\.pth")
_RUN_ID = "run_id"


class Checkpointer(DetectionCheckpointer):
    """Saves and loads the model and the trainer, in detectron2's file format.

    A model may list the first components of the state-dict keys of its trained parts in
    ``checkpoint_prefixes``; then only these are saved, and only these are reported if missing.

    Every checkpoint has a seal (:mod:`maskclippp.files.seal`) with its hash, its iteration and the
    id of its run, which the folder holds in the file ``run_id``.

    Attributes:
        loaded: the file that the model was last loaded from; None: it has its initial weights.
        allow_incomplete: only warn of weights that lack trained tensors or are not finite.
    """

    loaded: Path | None = None
    allow_incomplete = False

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
                writer = SealingWriter(file)
                # torch asks for no more than write and flush.
                torch.save(content, writer)  # type: ignore[arg-type]
                writer.seal({"run": self._run_id(), "iteration": extra.get("iteration")})
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
        """Whether the folder has a checkpoint for some process; a collective call."""
        return any(comm.all_gather(bool(self.resume_candidates())))

    def get_checkpoint_file(self) -> str:
        """The path of the newest checkpoint; empty if there is none."""
        candidates = self.resume_candidates()
        return str(candidates[0]) if candidates else ""

    def resume_candidates(self) -> list[Path]:
        """The checkpoints of the run that this folder belongs to, newest first."""
        folder = Path(self.save_dir)
        foreign = self._foreign()
        if foreign:
            names = ", ".join(file.name for file in foreign)
            logger.warning("%s: not of the run that was started last, ignored: %s", folder, names)
        tag = folder / "last_checkpoint"
        last = tag.read_text(errors="replace").strip() if tag.is_file() else ""
        return sorted(
            (file for file in self._files() if file not in foreign),
            key=lambda file: (file.name == last, _iteration(file), file.name),
            reverse=True,
        )

    def _files(self) -> list[Path]:
        files = sorted(Path(self.save_dir).glob("model_*.pth"))
        return [file for file in files if _PERIODIC_NAME.fullmatch(file.name)]

    def _foreign(self) -> list[Path]:
        """The checkpoints of other runs than the one that this folder belongs to."""
        run = self._run_id()
        # Damaged files have no seal to read; they are reported when they are opened.
        seals = {file: read_seal(file) for file in self._files()} if run else {}
        return [file for file, seal in seals.items() if (seal or {}).get("run", run) != run]

    def start_run(self) -> None:
        """Mark the folder as that of a new run: checkpoints that are there are not its own."""
        folder = Path(self.save_dir)
        if not self.save_dir or not self.save_to_disk or not folder.is_dir():
            return
        remove_leftovers(folder)
        (folder / "last_checkpoint").unlink(missing_ok=True)
        with atomic_write(folder / _RUN_ID) as file:
            file.write(secrets.token_hex(8).encode())

    def write_final(self) -> None:
        """Write ``model_final.pth`` if a kill came between the last checkpoint and its copy.

        The last checkpoint is the one that has been loaded: a newer one was damaged.
        """
        final = Path(self.save_dir) / "model_final.pth"
        if self.save_to_disk and self.loaded is not None and self.loaded != final:
            logger.info("Copying %s to %s", self.loaded, final)
            with atomic_write(final) as target, self.loaded.open("rb") as source:
                shutil.copyfileobj(source, target)
            self.tag_last_checkpoint(final.name)

    def resume_or_load(
        self,
        path: str,
        *,
        resume: bool = True,
        may_be_absent: bool = True,
        starts_run: bool = False,
    ) -> dict[str, Any]:
        """Load the newest undamaged checkpoint (``resume``), else only the model from ``path``.

        Args:
            path: of a checkpoint; empty: none.
            resume: prefer the checkpoints in the folder.
            may_be_absent: the model may keep its initial weights.
            starts_run: a training starts from ``path``, which may lack tensors.

        Returns:
            The rest of the file's content, without model and loaded checkpointables.

        Raises:
            MissingFileError: there is neither, and ``may_be_absent`` is false.
            CheckpointError: the checkpoints in the folder are all of another run (``resume``).
        """
        candidates = self.resume_candidates() if resume else []
        if resume and any(comm.all_gather(bool(candidates))):
            return self._resume(candidates)
        if not path and not may_be_absent:
            raise MissingFileError(
                f"no checkpoint in {self.save_dir}: name the run with --tag, or a file with "
                "MODEL.WEIGHTS"
            )
        foreign = [file.name for file in self._foreign()] if resume else []
        if any(comm.all_gather(foreign)):
            raise CheckpointError(
                f"cannot resume: the run that was started last in {self.save_dir} has no "
                f"checkpoint, and {', '.join(foreign)} there belong to another one: move them "
                "away to start over, or start from their weights with MODEL.WEIGHTS in a new folder"
            )
        if resume:
            logger.warning("no checkpoint in %s: nothing to resume", self.save_dir)
        extra = self.load(path, checkpointables=[], complete=not starts_run)
        if starts_run:
            self.start_run()
        return extra

    def load(
        self,
        path: str | Path,
        checkpointables: Iterable[str] | None = None,
        *,
        complete: bool = True,
    ) -> dict[str, Any]:
        """Load the model and the named checkpointables (None: all), and return the rest.

        An empty path loads nothing.

        Raises:
            MissingFileError: the file does not exist, or an address cannot be reached.
            CheckpointError: it cannot be read safely, nothing in it fits the model, a number is not
                finite, or a trained tensor is missing (``complete``).
        """
        if not path:
            logger.info("No checkpoint given: the model keeps its initial weights.")
            return {}
        local_path = self._local_path(str(path))
        content = read_checkpoint(local_path, known=unwrapped(self.model).state_dict())
        return self._apply(content, local_path, checkpointables, complete=complete)

    def _local_path(self, path: str) -> Path:
        """The file at a path or an address, which is downloaded into iopath's cache."""
        if "://" not in path:
            local = Path(path).expanduser()
            return self._newest_of(local) if local.is_dir() else local
        try:
            return Path(self.path_manager.get_local_path(path))
        except (OSError, RuntimeError, ValueError) as error:
            raise MissingFileError(
                f"MODEL.WEIGHTS: {path} could not be downloaded ({error}): download it elsewhere "
                "and name the local copy"
            ) from error

    def _newest_of(self, folder: Path) -> Path:
        """The last checkpoint of a run in its folder, or the weights in one of the Hub's layout."""
        found = next(iter(Checkpointer(self.model, str(folder)).resume_candidates()), None)
        found = found or weights_in(folder)
        if found is None:
            raise MissingFileError(
                f"MODEL.WEIGHTS: {folder} is a folder, and no run has left a checkpoint "
                "(model_*.pth) there, nor is there a model of the Hugging Face Hub: name a file"
            )
        logger.info("%s is a folder: taking %s", folder, found.name)
        return found

    def _resume(self, candidates: list[Path]) -> dict[str, Any]:
        path: Path | None = None
        content: dict[str, Any] = {}
        problem = ""
        try:
            if candidates:
                path, content = self._newest_whole(candidates)
        except CheckpointError as error:
            problem = str(error)
        # All processes must raise, since the others would wait forever for one that left.
        outcomes = comm.all_gather((path.name if path else "none", problem))
        problems = [text for _, text in outcomes if text]
        if problems:
            raise CheckpointError(problems[0])
        chosen = {name for name, _ in outcomes}
        if len(chosen) > 1 or path is None:
            raise CheckpointError(
                f"the processes would resume from different checkpoints: {sorted(chosen)} "
                f"in {self.save_dir}; is the folder shared by all machines?"
            )
        logger.info("Resuming from %s", path)
        if self.save_to_disk:
            remove_leftovers(Path(self.save_dir))
        return self._apply(content, path, None, complete=True)

    def _newest_whole(self, candidates: list[Path]) -> tuple[Path, dict[str, Any]]:
        """The first undamaged candidate and its content."""
        known = unwrapped(self.model).state_dict()
        for path in candidates:
            try:
                return path, read_checkpoint(path, known=known)
            except CheckpointError as error:
                logger.error("%s; trying the previous checkpoint", error)
        raise CheckpointError(
            f"cannot resume: all {len(candidates)} checkpoints in {self.save_dir} are damaged"
        )

    def _apply(
        self,
        content: dict[str, Any],
        path: Path,
        checkpointables: Iterable[str] | None,
        *,
        complete: bool,
    ) -> dict[str, Any]:
        names = list(self.checkpointables if checkpointables is None else checkpointables)
        lacking = [name for name in names if name not in content]
        if lacking:
            raise CheckpointError(
                f"checkpoint {path} has no {' and no '.join(lacking)} state, so a run cannot be "
                "resumed from it; to start from its weights, use MODEL.WEIGHTS without --resume"
            )
        load_weights(
            unwrapped(self.model),
            content.pop("model"),
            source=path,
            prefixes=self._prefixes(),
            complete=complete,
            allow_incomplete=self.allow_incomplete,
        )
        for name in names:
            self.checkpointables[name].load_state_dict(content.pop(name))
        self.loaded = path
        return content

    def _prefixes(self) -> tuple[str, ...] | None:
        return getattr(unwrapped(self.model), "checkpoint_prefixes", None)

    def _run_id(self) -> str:
        """The id of the run that the folder belongs to; empty for folders of older versions."""
        file = Path(self.save_dir) / _RUN_ID
        return file.read_text(errors="replace").strip() if file.is_file() else ""


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
    complete: bool = True,
    allow_incomplete: bool = False,
) -> None:
    """Load the tensors that fit by name and shape into the model, and log the others.

    Args:
        source: where the tensors come from, for messages.
        prefixes: parts of the model that the file should contain; None: all.
        complete: trained tensors must not be missing or of another shape. (Scalars may be missing:
            published checkpoints lack the logit scale.)
        allow_incomplete: warn instead of refusing.

    Raises:
        CheckpointError: no tensor fits, trained tensors are missing, or numbers are not finite.
    """
    own = model.state_dict(keep_vars=True)
    found = compare(state, model)
    if not found.fitting:
        raise CheckpointError(
            f"nothing in checkpoint {source} fits the model: "
            + (
                describe_shapes(found.misshapen)
                if found.misshapen
                else f"it has {describe_keys(state)}; the model has {describe_keys(own)}"
            )
        )
    expected = [key for key, _ in _with_prefixes(own, prefixes)]
    missing = [key for key in expected if key not in state]
    trained = [key for key in missing if own[key].requires_grad and own[key].dim()]
    infinite = not_finite(found.fitting)
    unfit = len(found.misshapen) + len(trained) if complete else 0
    if (unfit or infinite) and not allow_incomplete:
        wrong = (
            f"of the {len(expected)} tensors that it should have, {len(trained)} are missing "
            f"({describe_keys(trained)}) and {len(found.misshapen)} have another shape or "
            "kind of number "
            f"({describe_shapes(found.misshapen)})"
            if unfit
            else f"{len(infinite)} tensors have numbers that are NaN or infinite "
            f"({describe_keys(infinite)})"
        )
        raise CheckpointError(
            f"checkpoint {source} does not fit the model: {wrong}. Check MODEL.WEIGHTS and "
            f"--config-file; to use it nevertheless, set {ALLOW_KEY} True"
        )
    model.load_state_dict(found.fitting, strict=False)
    logger.info("Loaded %d of %d tensors from %s", len(found.fitting), len(state), source)
    for problem, keys, described in (
        (
            "tensors of another shape or kind, skipped",
            found.misshapen,
            describe_shapes(found.misshapen),
        ),
        ("keys that the model does not have, ignored", found.unexpected, None),
        ("keys that the file lacks, left as they were", missing, None),
        ("tensors with numbers that are NaN or infinite", infinite, None),
    ):
        if keys:
            text = described or describe_keys(keys)
            logger.warning("%s: %d %s: %s", source, len(keys), problem, text)


def _iteration(checkpoint: Path) -> float:
    """The iteration after which a checkpoint was written; that of old final ones is unknown."""
    sealed = (read_seal(checkpoint) or {}).get("iteration")
    if isinstance(sealed, int):
        return sealed
    name = _PERIODIC_NAME.fullmatch(checkpoint.name)
    return float(name[1]) if name and name[1] != "final" else math.inf


def _with_prefixes(
    state: dict[str, Tensor], prefixes: tuple[str, ...] | None
) -> list[tuple[str, Tensor]]:
    return [
        (key, value)
        for key, value in state.items()
        if prefixes is None or key.partition(".")[0] in prefixes
    ]
