"""The base of the evaluators: scoring image by image, gathering, and result files."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

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
Score = TypeVar("Score")
Sums = TypeVar("Sums")


class ImageEvaluator(DatasetEvaluator, Generic[Prediction, Score, Sums]):
    """Scores each image on its own, then turns the scores of all processes into results.

    A model output passes through :meth:`_predicted` in the caller's thread, :meth:`_score` in a
    worker thread, and :meth:`_add` in the caller's thread, in the order of the images.
    :meth:`evaluate` gathers the sums of all processes; the main process computes :meth:`_results`
    and returns ``{task: {metric: percentage}}``, the others return None.

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
        self._sums = self._no_sums()

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
        gathered = comm.gather(self._sums)
        return self._results(gathered) if comm.is_main_process() else None

    @property
    def _class_names(self) -> Sequence[str]:
        """Per class the words that the model was asked for."""
        return self._own_names or self._truth.class_names

    def _take(self, scored: tuple[Score, ScoredImage | None]) -> None:
        score, picture = scored
        self._add(score)
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
    def _score(self, record: Record, prediction: Prediction) -> tuple[Score, ScoredImage | None]:
        """Score of an image, and its pictures if there is an output folder."""

    @abstractmethod
    def _add(self, score: Score) -> None:
        """Add the score of an image to the sums."""

    @abstractmethod
    def _no_sums(self) -> Sums:
        """The sums over no images; they can be pickled."""

    @abstractmethod
    def _results(self, gathered: Sequence[Sums]) -> dict[str, Any]:
        """Results from the sums of all processes, ordered by rank; writes the files."""


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
