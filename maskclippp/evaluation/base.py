"""The base of the evaluators: scoring image by image, gathering, and result files."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from maskclippp.errors import InputError
from maskclippp.evaluation.class_means import BoolArray
from maskclippp.evaluation.ground_truth import GroundTruth
from maskclippp.evaluation.picture_sheet import PictureSheet, ScoredImage
from maskclippp.evaluation.result_files import write_results
from maskclippp.evaluation.workers import ImageWork
from maskclippp.files.images import check_same_size
from maskclippp.records import ImageResult, Record
from maskclippp.words.requested import RequestedWords

Prediction = TypeVar("Prediction")
Sums = TypeVar("Sums")


class ImageEvaluator(DatasetEvaluator, Generic[Prediction, Sums]):
    """Scores each image on its own, then turns the sums of all processes into results.

    A model output passes through :meth:`_predicted` in the caller's thread, :meth:`_score` in a
    worker thread, and :meth:`_add` in the caller's thread, in the order of the images.
    :meth:`evaluate` gathers the sums of all processes; the main process computes :meth:`_results`
    and returns ``{task: {metric: percentage}}``, the others return None.

    What it has summed up can be taken out in parts (:meth:`take_part`) and put into another
    evaluator (:meth:`add_part`), which then gives the same results.

    Args:
        output_folder: folder for result files; None: write no files.
        words: vocabularies of the run. The result files record them, and metrics and tables name
            their words; if training classes are known, there are metrics over seen (S) and unseen
            (U) classes.
        by_seen: whether to report these metrics.
        threads: number of threads that score images while the model runs; 0: none. Does not
            affect results; an error in one image may surface while a later one is processed.
    """

    switch: ClassVar[str]  # the config key that turns on the model output to evaluate
    sums_type: ClassVar[Any]  # what msgspec makes of stored sums
    convention: str  # how the metrics are defined, for the result files
    sheet_of: ClassVar[tuple[str, str] | None] = None  # task and score of the picture sheet

    def __init__(
        self,
        ground_truth: GroundTruth,
        output_folder: str | Path | None = None,
        *,
        words: RequestedWords | None = None,
        by_seen: bool = True,
        threads: int = 0,
    ) -> None:
        self._truth = ground_truth
        self._folder = None if output_folder is None else Path(output_folder)
        self._provenance = {} if words is None else words.provenance()
        # As registered, unless the model was asked for other words: published keys stay.
        self._own_names: tuple[str, ...] | None = None
        if words is not None and words.vocabulary != ground_truth.vocabulary:
            self._own_names = words.vocabulary.names
        self._seen: BoolArray | None = None  # [K]
        if by_seen and words is not None and words.train_vocabulary is not None:
            self._seen = words.seen.numpy()
        self._work = ImageWork(self._take, threads)
        self._clear()

    def reset(self) -> None:
        """Start over."""
        self._clear()

    def _clear(self) -> None:
        self._work.clear()
        self._sheet = PictureSheet()
        self._taken_sums = self._no_sums()  # what has been taken out in parts
        self._sums = self._no_sums()  # since then

    def process(self, inputs: Sequence[Record], outputs: Sequence[ImageResult]) -> None:
        """Score a batch.

        Args:
            inputs: the model's input records; they name the annotation files.
            outputs: the model's output for each record.

        Raises:
            InputError: names the image and what is wrong with its record, annotation or output.
        """
        for record, output in zip(inputs, outputs, strict=True):
            prediction = self._predicted(record, output)
            if prediction is not None:
                self._work.submit(self._score, record, prediction)

    def evaluate(self) -> dict[str, Any] | None:
        """Results of all processes. Every process must call it."""
        self._work.finish()
        if self._folder is not None and self.sheet_of is not None:
            task, score = self.sheet_of
            self._sheet.write(
                self._folder / f"{task}_pictures.png",
                self._class_names,
                f"{score} of the image",
            )
        gathered = comm.gather(self._all_sums())
        return self._results(gathered) if comm.is_main_process() else None

    @property
    def parts(self) -> "list[ImageEvaluator[Any, Any]]":
        """The evaluators that sum up images: this one."""
        return [self]

    def take_part(self) -> bytes:
        """What was added since the last call, for :meth:`add_part`; waits for pending images."""
        self._work.wait()
        part = self._sums, self._sheet.take_new()
        self._add(self._taken_sums, self._sums)
        self._sums = self._no_sums()
        return msgspec.msgpack.encode(part, enc_hook=_encoded)

    def add_part(self, part: bytes) -> None:
        """Add what another evaluator of this class and dataset has taken out."""
        kind = tuple[self.sums_type, list[ScoredImage]]  # type: ignore[name-defined]
        sums, pictures = msgspec.msgpack.decode(part, type=kind, dec_hook=_decoded)
        self._add(self._taken_sums, sums)
        for picture in pictures:
            self._sheet.offer(picture)
        self._sheet.take_new()

    def _all_sums(self) -> Sums:
        """The sums over all images of this process that have been scored."""
        sums = self._no_sums()
        self._add(sums, self._taken_sums)
        self._add(sums, self._sums)
        return sums

    @property
    def _class_names(self) -> Sequence[str]:
        """Per class the words that the model was asked for."""
        return self._own_names or self._truth.class_names

    def _take(self, scored: tuple[Sums, ScoredImage | None]) -> None:
        sums, picture = scored
        self._add(self._sums, sums)
        if picture is not None:
            self._sheet.offer(picture)

    def _write(
        self,
        task: str,
        metrics: Mapping[str, float],
        per_class: Sequence[Mapping[str, Any]],
        confusion_pairs: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write the result files of a task, if there is a folder for them."""
        if self._folder is not None:
            write_results(
                self._folder,
                task=task,
                dataset_name=self._truth.dataset_name,
                convention=self.convention,
                metrics=metrics,
                per_class=per_class,
                confusion_pairs=confusion_pairs,
                words=self._provenance,
            )

    def _class_rows(self, **columns: npt.NDArray[Any]) -> list[dict[str, Any]]:
        """A row per class: its name, whether it is seen, and its entry of every column [K]."""
        seen = self._seen
        return [
            {
                "class": name,
                "seen": None if seen is None else bool(seen[index]),
                **{key: values[index].item() for key, values in columns.items()},
            }
            for index, name in enumerate(self._class_names)
        ]

    @abstractmethod
    def _predicted(self, record: Record, output: ImageResult) -> Prediction | None:
        """The validated prediction, on the CPU; None: do not score the image."""

    @abstractmethod
    def _score(self, record: Record, prediction: Prediction) -> tuple[Sums, ScoredImage | None]:
        """The sums over one image, and its pictures if there is an output folder."""

    @abstractmethod
    def _add(self, sums: Sums, more: Sums) -> None:
        """Add the sums over other images to ``sums``, in place and without rounding."""

    @abstractmethod
    def _no_sums(self) -> Sums:
        """The sums over no images; they can be pickled."""

    @abstractmethod
    def _results(self, gathered: Sequence[Sums]) -> dict[str, Any]:
        """Results from the sums of all processes, ordered by rank; writes the files."""


def _encoded(value: Any) -> Any:
    """NumPy values as what MessagePack has."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(type(value))


def _decoded(_kind: Any, value: Any) -> Any:
    """The array that was encoded."""
    dtype, shape, content = value
    return np.frombuffer(content, dtype).reshape(shape).copy()


def required(output: ImageResult, key: str, record: Record, switch: str) -> Any:
    """``output[key]``; an InputError names the key, the image, and the config ``switch``."""
    value = output.get(key)
    if value is None:
        raise InputError(
            f"the model's output for {record['file_name']} has no {key}, only {sorted(output)}: "
            f"this evaluation needs {switch}"
        )
    return value


def check_prediction_size(
    shape: Sequence[int], record: Record, size: Sequence[int], annotation_file: str
) -> None:
    """Raise InputError unless a map [H, W] or masks [n, H, W] have the size of the annotation."""
    if len(shape) not in (2, 3):
        raise InputError(
            f"prediction for {record['file_name']}: expected masks [n, {size[0]}, {size[1]}], "
            f"found an array of shape {tuple(shape)}"
        )
    check_same_size(shape[-2:], f"prediction for {record['file_name']}", size, annotation_file)
