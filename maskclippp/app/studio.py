"""Answers requests of many people at once.

A request carries its own words. What is kept between requests, the most recent encoded pictures
and results, is found by everything that it depends on, so that no one sees the words of another.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from PIL import Image

from maskclippp.errors import InputError
from maskclippp.files.images import read_image, read_image_size
from maskclippp.predictor import INSTANCE_THRESHOLD, EncodedPicture, Predictor
from maskclippp.segmentation import Segmentation, Task
from maskclippp.words.spelling import separates_words, split_classes
from maskclippp.words.text_classifier import TextClassifier
from maskclippp.words.vocabulary import Vocabulary

# Limits for one request.
MAX_CHARACTERS = 20_000
MAX_SYNONYMS = 1000
MAX_PIXELS = 50_000_000
# Larger pictures are scaled down to this longer side.
MAX_SIDE = 1600

_KEPT_PICTURES = 8
_KEPT_RESULTS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What one person asks for.

    Attributes:
        model: one of those that the page offers.
        picture: an image file.
        classes: one text per class, synonyms separated by commas.
        task: what the segments are.
        threshold: the least score of an instance.
    """

    model: str
    picture: Path
    classes: tuple[str, ...]
    task: Task = "semantic"
    threshold: float = INSTANCE_THRESHOLD


class Studio:
    """Segments pictures for several people with the same models.

    Args:
        predictors: by the names under which they are offered.
    """

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self._predictors = predictors
        self._lock = threading.Lock()
        self._encoded: _Recent[EncodedPicture] = _Recent(_KEPT_PICTURES)
        self._results: _Recent[Segmentation] = _Recent(_KEPT_RESULTS)
        for predictor in predictors.values():
            # Builds the generator, so that a missing file is named before anybody waits.
            for part in (predictor.model, predictor.model.mask_generator):
                classifier = getattr(part, "text_classifier", None)
                if isinstance(classifier, TextClassifier):
                    classifier.cache = False  # what visitors type does not belong on the disk

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models, the default first."""
        return tuple(self._predictors)

    def segment(self, request: Request) -> Segmentation:
        """Segment the picture; what is known of the same picture is not computed again.

        Raises:
            InputError: an unknown model, an unusable picture or words, or too much of them.
        """
        if request.model not in self._predictors:
            raise InputError(
                f"model {request.model!r} is not one of those of this page, {list(self.models)}"
            )
        words = checked_words(request.classes)
        predictor = self._predictors[request.model]
        with self._lock:
            digest = _digest(request.picture)

            def encode() -> EncodedPicture:
                return predictor.encode(read_picture(request.picture))

            def classify() -> Segmentation:
                encoded = self._encoded.get((request.model, digest), encode)
                result = predictor.classify(
                    encoded, words.names, task=request.task, threshold=request.threshold
                )
                result.path = Path(request.picture.name)
                return result

            asked = request.model, request.picture.name, request.task, request.threshold
            return self._results.get((digest, words.names, *asked), classify)


class _Recent(Generic[T]):
    """The values that were asked for most recently."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made if it is not there."""
        value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return value


def split_words(text: str) -> tuple[str, ...]:
    """One text per class of what a person typed, unchecked; () for blanks only.

    A line ends a class as a semicolon does; otherwise as in :func:`split_classes`.
    """
    lines = [line.strip().removesuffix(";") for line in text.splitlines() if line.strip(" ;\t")]
    text = ";".join(lines) + (";" if text.rstrip().endswith(";") else "")
    if not lines:
        return ()
    classes = split_classes(text, "the words") if separates_words(text) else [text]
    return tuple(name.strip() for name in classes)


def checked_words(classes: tuple[str, ...]) -> Vocabulary:
    """The vocabulary of the classes.

    Raises:
        InputError: none, too many, repeated or malformed words.
    """
    if not classes:
        raise InputError("no words to look for: type at least one, such as 'cat, kitten; grass'")
    characters = sum(map(len, classes))
    if characters > MAX_CHARACTERS:
        raise InputError(
            f"the words have {characters:,} characters; at most {MAX_CHARACTERS:,} are taken here"
        )
    words = Vocabulary.from_class_names(classes, "the words")
    if len(words.synonyms) > MAX_SYNONYMS:
        raise InputError(
            f"{len(words.synonyms):,} words were typed; at most {MAX_SYNONYMS:,} are taken here"
        )
    return words.require_unique()


def read_picture(path: Path) -> Image.Image:
    """An image file of a visitor as RGB, scaled down to :data:`MAX_SIDE`.

    Raises:
        InputError: it cannot be read, or is too large; names the file without its folder.
    """
    try:
        height, width = read_image_size(path)
        if height * width > MAX_PIXELS:
            raise InputError(
                f"{path.name} has {width} x {height} pixels; at most {MAX_PIXELS:,} are taken "
                "here: scale it down first"
            )
        picture = read_image(path, reduce_depth=True)
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return picture


def _digest(path: Path) -> bytes:
    try:
        return hashlib.blake2b(path.read_bytes()).digest()
    except OSError as error:
        raise InputError(f"{path.name} is no longer here: choose the picture again") from error
