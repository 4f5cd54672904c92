"""Images and words in, :class:`Segmentation` out, for people who never see a config.

An image is encoded once; then its masks can be classified into any words.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from maskclippp.data.mappers.evaluation import resized_for_test
from maskclippp.engine.evaluate import weights_in_test_precision
from maskclippp.errors import InputError, check_choice
from maskclippp.files.images import read_image
from maskclippp.masks.batching import call_by_size
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.meta_arch import EncodedMasks, MaskCLIPpp
from maskclippp.predictor.images import as_pillow, checked_masks, images_of
from maskclippp.predictor.models import build_model
from maskclippp.predictor.pictures import EncodedPicture, Picture, Timed
from maskclippp.records import Record
from maskclippp.segmentation import TASKS, Segmentation, Task
from maskclippp.words.given import Words, given_words
from maskclippp.words.requested import RequestedWords

ImageLike: TypeAlias = str | Path | Image.Image | npt.NDArray[Any] | Tensor

INSTANCE_THRESHOLD = 0.5
_BATCH_ON_CPU, _BATCH_ON_GPU = 1, 8


class Predictor:
    """Segments images into words.

    Several threads may call it: the model runs one call at a time, and ``classify`` and the
    ``words`` arguments do not change the words of other calls.

    Args:
        model: in evaluation mode.
        min_size, max_size: of the shorter and longer side at which the model sees an image; a
            ``min_size`` of 0 keeps its size.
    """

    def __init__(self, model: MaskCLIPpp, *, min_size: int = 0, max_size: int = 1333) -> None:
        self.model = model.eval()
        self.min_size = min_size
        self.max_size = max_size
        self._words: RequestedWords | None = None
        self._encoded: EncodedPicture | None = None
        self._lock = threading.RLock()
        # Streams that are running, and the weights that they have converted together.
        self._streams, self._converted = 0, ExitStack()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "default",
        weights: str | Path | None = None,
        generator: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
    ) -> "Predictor":
        """Build a predictor; see :func:`maskclippp.predictor.models.build_model`."""
        cfg, built = build_model(model, weights, generator, device, dtype, revision)
        return cls(built, min_size=cfg.INPUT.MIN_SIZE_TEST, max_size=cfg.INPUT.MAX_SIZE_TEST)

    @property
    def batch_size(self) -> int:
        """Images that are encoded together by default: 8, on a CPU 1, which takes less time."""
        return _BATCH_ON_CPU if self.model.device.type == "cpu" else _BATCH_ON_GPU

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that are looked for, synonyms separated by commas; () before set_classes."""
        return () if self._words is None else self._words.vocabulary.names

    @property
    def words(self) -> RequestedWords:
        """The classes that are looked for; an InputError before set_classes."""
        return self._current_words()

    def set_classes(self, words: Words, things: Iterable[str] | None = None) -> "Predictor":
        """Look for these classes from now on; the same words as before cost nothing.

        Args:
            words: see :func:`maskclippp.words.given.given_words`.
            things: synonyms of the classes that have instances; by default all whose words are
                not those of stuff in a dataset's class list.
        """
        self._words = self._requested(words, things)
        return self

    @overload
    def __call__(
        self, image: ImageLike, *, task: Task = ..., threshold: float = ...
    ) -> Segmentation: ...

    @overload
    def __call__(
        self, image: list[Any] | tuple[Any, ...], *, task: Task = ..., threshold: float = ...
    ) -> list[Segmentation]: ...

    def __call__(
        self,
        image: ImageLike | list[Any] | tuple[Any, ...],
        *,
        task: Task = "semantic",
        threshold: float = INSTANCE_THRESHOLD,
    ) -> Segmentation | list[Segmentation]:
        """Segment an image, or a list of images.

        Args:
            image: a path, a Pillow image, a NumPy array uint8 [H, W, 3] or [H, W] or a tensor
                uint8 [3, H, W]; RGB.
            task: "semantic", "panoptic" or "instance": what the segments are.
            threshold: the least score of an instance.

        Raises:
            InputError: no words were set, or an image has another form.
        """
        if isinstance(image, list | tuple):
            return list(self.stream(image, task=task, threshold=threshold))
        return self._segment([self._read(image)], self._current_words(), task, threshold)[0]

    def stream(
        self,
        images: str | Path | Iterable[ImageLike],
        *,
        task: Task = "semantic",
        batch_size: int | None = None,
        threshold: float = INSTANCE_THRESHOLD,
        on_error: Callable[[ImageLike, InputError], None] | None = None,
    ) -> Iterator[Segmentation]:
        """Segment the images of a folder, or of anything that yields images, in order.

        Images are read while others are segmented. Memory does not grow with their number.

        Args:
            images: a folder (its images are taken, not those of its subfolders), or images as in a
                call.
            task: as in a call.
            batch_size: images that are encoded together, if they are of the same size; default:
                :attr:`batch_size`.
            threshold: as in a call.
            on_error: called with an image that cannot be read, which is then left out; by default
                its error is raised.

        Raises:
            InputError: no words were set, a folder without images, an image has another form, or
                ``batch_size`` is not positive.
        """
        batch_size = self.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise InputError(f"batch_size: expected a positive number, found {batch_size}")
        words = self._current_words()
        if isinstance(images, str | Path):
            images = images_of(images)
        with self.weights_in_test_precision(), ThreadPoolExecutor(1) as reader:
            source = iter(images)
            read = partial(self._read_batch, on_error=on_error)
            later = reader.submit(read, list(islice(source, batch_size)))
            while True:
                more, pictures = later.result()
                if not more:
                    return
                later = reader.submit(read, list(islice(source, batch_size)))
                yield from self._segment(pictures, words, task, threshold)

    @contextmanager
    def weights_in_test_precision(self) -> Iterator[None]:
        """Within, weights are in the precision of TEST.DTYPE, which calls would convert them to.

        It saves time if many images follow each other; :meth:`stream` does it itself. Streams of
        several threads share the weights.
        """
        with self._lock:
            if self._streams == 0:
                self._converted.enter_context(weights_in_test_precision(self.model))
            self._streams += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams -= 1
                if self._streams == 0:
                    self._converted.close()

    def set_image(self, image: ImageLike) -> None:
        """Encode an image, for :meth:`predict`."""
        self._encoded = self.encode(image)

    def predict(
        self,
        words: Words | None = None,
        *,
        task: Task = "semantic",
        threshold: float = INSTANCE_THRESHOLD,
    ) -> Segmentation:
        """Segment the image of :meth:`set_image` into words, by default those of set_classes."""
        if self._encoded is None:
            raise InputError("no image was set: call set_image(image) first, or call the predictor")
        return self.classify(self._encoded, words, task=task, threshold=threshold)

    def predict_masks(
        self, masks: npt.NDArray[Any] | Tensor, words: Words | None = None
    ) -> Segmentation:
        """Classify masks of any origin in the image of :meth:`set_image`.

        Args:
            masks: bool or 0 and 1, or probabilities, [N, H, W] at the size of the image.
            words: by default those of set_classes.

        Returns:
            With one segment per mask, in order.
        """
        if self._encoded is None:
            raise InputError("no image was set: call set_image(image) first")
        picture = self._encoded.picture
        given = checked_masks(masks, picture.pixels.shape[:2])
        with self._lock:
            encoded = self.model.encode([picture.record], masks=[SoftMasks(given)])
        return self._results([picture], encoded, self._words_or_current(words), "masks", 0.0)[0]

    def encode(self, image: ImageLike) -> EncodedPicture:
        """Find and encode the masks of an image: what does not depend on words.

        Raises:
            InputError: the image has another form; or the generator finds masks for words, and
                none were set.
        """
        return self._encode(self._read(image), self._words)

    def classify(
        self,
        encoded: EncodedPicture,
        words: Words | None = None,
        *,
        task: Task = "semantic",
        threshold: float = INSTANCE_THRESHOLD,
    ) -> Segmentation:
        """Segment an encoded image into words, by default those of set_classes.

        It is encoded again if its generator finds other masks for them (SAM 3).
        """
        requested = self._words_or_current(words)
        if not self.model.finds_the_same(encoded.masks, requested):
            encoded = self._encode(encoded.picture, requested)
        return self._results([encoded.picture], encoded.masks, requested, task, threshold)[0]

    def _encode(self, picture: Picture, words: RequestedWords | None) -> EncodedPicture:
        with self._lock, Timed([picture], "encode", self.model.device):
            return EncodedPicture(picture, self.model.encode([picture.record], words))

    def _segment(
        self, pictures: Sequence[Picture], words: RequestedWords, task: Task, threshold: float
    ) -> list[Segmentation]:
        def of_batch(records: Sequence[Record]) -> list[Segmentation]:
            batch = [picture_of[id(record)] for record in records]
            with self._lock, Timed(batch, "encode", self.model.device):
                encoded = self.model.encode(records, words)
            return self._results(batch, encoded, words, task, threshold)

        if not pictures:
            return []
        picture_of = {id(picture.record): picture for picture in pictures}
        records = [picture.record for picture in pictures]
        if self.model.inference.pad_alone:
            return call_by_size(of_batch, records)
        return of_batch(records)

    def _results(
        self,
        pictures: Sequence[Picture],
        encoded: EncodedMasks,
        words: RequestedWords,
        task: Task,
        threshold: float,
    ) -> list[Segmentation]:
        check_choice("task", task, TASKS)
        with self._lock, Timed(pictures, "classify", self.model.device):
            classified = self.model.classify(encoded, words)
        results = []
        for picture, found, embeddings in zip(
            pictures, classified, encoded.mask_embeddings, strict=True
        ):
            start = time.perf_counter()
            result = Segmentation(
                picture.pixels,
                found,
                words,
                task,
                settings=self.model.inference,
                mask_embeddings=embeddings,
                threshold=threshold,
                path=picture.path,
                speed=picture.speed,
            )
            result.compute()
            result.speed["output"] = 1000 * (time.perf_counter() - start)
            results.append(result)
        return results

    def _requested(self, words: Words, things: Iterable[str] | None = None) -> RequestedWords:
        return given_words(
            words,
            things,
            train_vocabulary=self.model.train_vocabulary,
            selection=self.model.vocabulary,
            known=self._words,
        )

    def _words_or_current(self, words: Words | None) -> RequestedWords:
        return self._current_words() if words is None else self._requested(words)

    def _current_words(self) -> RequestedWords:
        if self._words is None:
            raise InputError(
                "no words to look for: call set_classes(['cat, kitten', 'grass']) first"
            )
        return self._words

    def _read_batch(
        self,
        images: Sequence[ImageLike],
        on_error: Callable[[ImageLike, InputError], None] | None,
    ) -> tuple[bool, list[Picture]]:
        """Whether there were any images, and those that could be read."""
        pictures = []
        for image in images:
            try:
                pictures.append(self._read(image))
            except InputError as error:
                if on_error is None:
                    raise
                on_error(image, error)
        return bool(images), pictures

    def _read(self, image: ImageLike) -> Picture:
        start = time.perf_counter()
        path = Path(image).expanduser() if isinstance(image, str | Path) else None
        pillow = read_image(path, reduce_depth=True) if path else as_pillow(image)
        record: Record = {
            "image": resized_for_test(pillow, self.min_size, self.max_size),
            "height": pillow.height,
            "width": pillow.width,
        }
        if path is not None:
            record["file_name"] = str(path)
        speed = {"read": 1000 * (time.perf_counter() - start)}
        return Picture(np.asarray(pillow), record, path, speed)
