"""An evaluation that a kill does not undo: what is finished is kept, for ``--resume``.

Every process has a journal beside the results of a dataset. Its first entry says what is evaluated;
the others have the sums over the images since the entry before.
"""

import hashlib
import logging
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from torch import nn
from torch.utils.data import DataLoader

import maskclippp
from maskclippp.evaluation.base import ImageEvaluator
from maskclippp.files.journal import Journal
from maskclippp.generators import MaskGenerator

logger = logging.getLogger(__name__)

JOURNALS = "progress_*.journal"
# A journal is written this often, or less often if it would take more than its share of the time.
_SECONDS = 10.0
_SHARE = 0.01
_NUMBERS_PER_TENSOR = 64
# Settings that do not change the results; the weights themselves are compared, not their names.
_IRRELEVANT = (("OUTPUT_DIR",), ("MODEL", "WEIGHTS"), ("DATASETS", "TEST"), ("DATALOADER",))
_FILES = ("file_name", "sem_seg_file_name", "pan_seg_file_name")
_ANNOTATIONS = ("json_file", "panoptic_json")


class _Entry(NamedTuple):
    images: list[list[str]]  # the files of every image
    parts: list[bytes]  # of every evaluator


class Progress:
    """Keeps the finished images of the evaluations of one command.

    Args:
        weights: what the result files say about them.
        resume: continue what an earlier command has left unfinished.
    """

    def __init__(
        self, cfg: CfgNode, model: nn.Module, weights: Mapping[str, Any], *, resume: bool
    ) -> None:
        self._facts = {
            "versions of the program": _program(),
            "settings": _settings(cfg),
            "weights": _digest(str(weights.get("sha256")).encode()) + _fingerprint(model),
            "numbers of processes": str(comm.get_world_size()),
        }
        self._model = model
        self._resume = resume
        self._journals: list[Journal] = []

    def keep(
        self,
        dataset_name: str,
        loader: Any,
        evaluator: DatasetEvaluator,
        folder: Path,
        words: Mapping[str, Any],
    ) -> tuple[Any, DatasetEvaluator]:
        """The loader without the images that are finished, and the evaluator that keeps them.

        Both are returned as they are if they are of other kinds than those of this package, or if
        the folder cannot be written.
        """
        parts = _image_evaluators(evaluator)
        if not parts or not isinstance(loader, DataLoader) or loader.batch_size is None:
            return loader, evaluator
        try:
            journal = Journal(folder / JOURNALS.replace("*", str(comm.get_rank())))
        except OSError as error:
            logger.warning("%s: finished images are not kept (%s)", folder, error)
            return loader, evaluator
        # The model builds its generator for the first dataset, and does not count it as a part.
        generator: MaskGenerator | None = getattr(self._model, "mask_generator", None)
        facts = {
            **self._facts,
            "mask generators": "" if generator is None else _fingerprint(generator),
            "words": _digest(msgspec.json.encode(words)),
        }
        entries = self._found(journal, facts, dataset_name, loader, generator)
        self._journals.append(journal)
        if not entries:
            journal.clear()
            journal.append(msgspec.json.encode({**facts, "begun": time.time()}))
        finished = sum(len(entry.images) for entry in entries)
        if finished:
            logger.info("%s: continuing after %d images", dataset_name, finished)
            loader = _without_first(loader, finished)
        return loader, _KeptEvaluator(evaluator, parts, journal, entries)

    def finish(self) -> None:
        """Remove the journals: all results are written. Every process must call it."""
        comm.synchronize()
        for journal in self._journals:
            journal.close()
            # Also those of a killed evaluation with more processes.
            for path in journal.path.parent.glob(JOURNALS):
                path.unlink(missing_ok=True)

    def _found(
        self,
        journal: Journal,
        facts: Mapping[str, str],
        dataset_name: str,
        loader: DataLoader[Any],
        generator: MaskGenerator | None,
    ) -> list[_Entry]:
        """What can be continued; warns if there is something that cannot."""
        if not journal.entries:
            return []
        try:
            header = msgspec.json.decode(journal.entries[0], type=dict[str, Any])
            entries = [
                msgspec.msgpack.decode(zlib.decompress(entry), type=_Entry)
                for entry in journal.entries[1:]
            ]
        except (msgspec.DecodeError, zlib.error) as error:
            logger.warning(
                "%s is not continued, because it is no journal (%s)", journal.path, error
            )
            return []
        journal.entries = []
        finished = [files for entry in entries for files in entry.images]
        if not finished:
            return []
        other = [name for name, value in facts.items() if header.get(name) != value]
        reason = f"it was one of other {' and '.join(other)}" if other else ""
        if not self._resume:
            reason = "--resume was not given"
        elif not reason:
            reason = _change(dataset_name, loader, generator, finished, header["begun"])
        if reason:
            logger.warning(
                "%s: an unfinished evaluation of %d images is not continued, because %s",
                journal.path.parent,
                len(finished),
                reason,
            )
            return []
        return entries


class _KeptEvaluator(DatasetEvaluator):
    """Passes batches on to an evaluator, and writes what it has summed up to a journal."""

    def __init__(
        self,
        evaluator: DatasetEvaluator,
        parts: Sequence[ImageEvaluator[Any, Any]],
        journal: Journal,
        found: Sequence[_Entry],
    ) -> None:
        self._evaluator = evaluator
        self._parts = parts
        self._journal: Journal | None = journal
        self._found = found
        self._images: list[list[str]] = []  # since the last entry
        self._due = time.monotonic() + _SECONDS

    def reset(self) -> None:
        """Start with what was found."""
        self._evaluator.reset()
        for entry in self._found:
            for evaluator, part in zip(self._parts, entry.parts, strict=True):
                evaluator.add_part(part)
        self._found = ()

    def process(self, inputs: Any, outputs: Any) -> None:
        """See ``DatasetEvaluator``."""
        self._evaluator.process(inputs, outputs)
        self._images += map(_files, inputs)
        if time.monotonic() >= self._due:
            self._save()

    def evaluate(self) -> dict[str, Any] | None:
        """See ``DatasetEvaluator``."""
        self._save()
        return self._evaluator.evaluate()

    def _save(self) -> None:
        if self._journal is None or not self._images:
            return
        start = time.monotonic()
        entry = _Entry(self._images, [evaluator.take_part() for evaluator in self._parts])
        self._images = []
        try:
            self._journal.append(zlib.compress(msgspec.msgpack.encode(entry), level=1))
        except OSError as error:
            logger.warning("%s: no more images are kept (%s)", self._journal.path, error)
            self._journal = None
        now = time.monotonic()
        self._due = now + max(_SECONDS, (now - start) / _SHARE)


def _image_evaluators(evaluator: DatasetEvaluator) -> list[ImageEvaluator[Any, Any]]:
    """Those that an evaluator consists of; [] if there are others among them."""
    if not isinstance(evaluator, DatasetEvaluators):
        return list(getattr(evaluator, "parts", []))
    groups = [_image_evaluators(member) for member in evaluator._evaluators]
    return [part for group in groups for part in group] if all(groups) else []


def _without_first(loader: DataLoader[Any], images: int) -> DataLoader[Any]:
    """A test loader that skips images without loading them."""
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=list(loader.sampler)[images:],
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
    )


def _change(
    dataset_name: str,
    loader: DataLoader[Any],
    generator: MaskGenerator | None,
    finished: list[list[str]],
    begun: float,
) -> str:
    """How the finished images of a dataset have changed since the evaluation began; else ""."""
    records = get_detection_dataset_dicts([dataset_name], filter_empty=False)
    done = [records[index] for index in list(loader.sampler)[: len(finished)]]
    if [_files(record) for record in done] != finished:
        return "the dataset lists other images"
    metadata = MetadataCatalog.get(dataset_name)
    files = {metadata.get(key, None) or "" for key in _ANNOTATIONS}
    files.update(*finished)
    if generator is not None:
        files.update(str(file) for record in done for file in generator.files_of(record))
    for file in files - {""}:
        path = Path(file)
        # Label maps may be missing; if one was removed, its folder has changed.
        while not path.exists():
            path = path.parent
        if path.stat().st_ctime > begun:
            return f"{path} has changed"
    return ""


def _files(record: Mapping[str, Any]) -> list[str]:
    """The files of an image."""
    return [str(record.get(key) or "") for key in _FILES]


def _settings(cfg: CfgNode) -> str:
    cfg = cfg.clone()
    for *path, key in _IRRELEVANT:
        node = cfg
        for name in path:
            node = node[name]
        node.pop(key)
    return _digest(cfg.dump().encode())


def _program() -> str:
    """The version, and a hash of the source code: researchers edit it."""
    sources = sorted(Path(maskclippp.__path__[0]).rglob("*.py"))
    return f"{maskclippp.__version__} {_digest(b''.join(map(Path.read_bytes, sources)))}"


def _fingerprint(module: nn.Module) -> str:
    """A hash of some numbers of every tensor: not all come from the checkpoint."""
    parts = []
    for name, tensor in module.state_dict().items():
        step = max(1, tensor.numel() // _NUMBERS_PER_TENSOR)
        numbers = tensor.detach().flatten()[::step].cpu().double()
        parts += [
            f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(),
            numbers.numpy().tobytes(),
        ]
    return _digest(b"\0".join(parts))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
