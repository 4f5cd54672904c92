"""A job that any number of processes share, without talking to each other.

Its folder has ``manifest.json`` (what labels depend on), ``images.txt`` (one image per line),
``claims/`` (who works on what) and ``labels/`` (one file per finished shard). A shard is done when
its file is there. Whoever is killed loses the shard that it was working on; another process, or the
same command again, labels it.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

from maskclippp.errors import InputError, UnreadableFileError, check_choice
from maskclippp.files.atomic import remove_leftovers, write_json
from maskclippp.files.json_files import read_json
from maskclippp.files.lock import Claims
from maskclippp.labeling.image_list import (
    Entry,
    ImageList,
    check_source,
    find_images,
    image_root,
    write_image_list,
)
from maskclippp.labeling.labeler import Labeler, Picture, Row, row_of
from maskclippp.labeling.progress import Progress
from maskclippp.labeling.shard_files import FORMATS, check_format, write_rows
from maskclippp.predictor.images import IMAGE_ENDINGS
from maskclippp.segmentation import Segmentation

MANIFEST, IMAGES, CLAIMS, LABELS, INDEX = "manifest.json", "images.txt", "claims", "labels", "index"
_HASHES = ("config", "words", "weights")
_READERS = 4
_POLL_SECONDS = 1.0
_HOUR = 3600.0


class Manifest(TypedDict):
    """What labels depend on: the same for all processes of a job, and whenever it continues."""

    input: str
    shard_size: int
    format: str
    index_png: bool
    task: str
    threshold: float
    dtype: str
    config: str
    words: str
    weights: str
    classes: list[str]
    things: list[int]


class Job:
    """Labels the images of a source into a folder.

    Args:
        source: see :func:`find_images`.
        output: the folder; created if it does not exist.
        shard_size: images per file.
        file_format: "jsonl" or "parquet".
        index_png: also write the class of every pixel of each image.
        write: takes the lines that are reported.

    Raises:
        InputError: there is no such source, or another argument is wrong.
    """

    def __init__(
        self,
        source: str,
        output: Path,
        *,
        shard_size: int = 1000,
        file_format: str = "jsonl",
        index_png: bool = False,
        write: Callable[[str], None] = lambda _: None,
    ) -> None:
        check_choice("format", file_format, FORMATS)
        if shard_size < 1:
            raise InputError(f"shard size {shard_size}: expected a positive number")
        check_format(file_format)
        check_source(source)
        self._source, self._root, self._output = source, image_root(source), output
        self._shard_size, self._format, self._index_png = shard_size, file_format, index_png
        self._write = write
        self._claims = Claims(output / CLAIMS)

    def run(self, labeler: Labeler, start: float = 0.0) -> None:
        """Label until all shards are done, by this process or by others.

        Args:
            labeler: with the model and the words.
            start: where in the job this process begins, in 0..1: processes that begin at different
                places do not try to claim the same shards.

        Raises:
            InputError: the source has no images, or the folder is that of a job with other
                settings, which are named.
        """
        manifest = self._manifest(labeler)
        with _explained(self._output):
            self._plan(manifest)
            with labeler.predictor.weights_in_test_precision():
                self._label_all(labeler, start)
            remove_leftovers(self._output / LABELS, older_than=_HOUR)

    def _label_all(self, labeler: Labeler, start: float) -> None:
        images = ImageList(self._output / IMAGES, self._shard_size)
        progress = Progress(images.count, self._count_done(), self._write)
        first = int(start * images.shards) % images.shards
        remaining = deque([*range(first, images.shards), *range(first)])
        is_waiting = False
        while remaining:
            before = len(remaining)
            for _ in range(before):
                shard = remaining.popleft()
                if not self._file(shard).is_file() and not self._label_if_free(
                    shard, images, labeler, progress
                ):
                    remaining.append(shard)
            if len(remaining) == before:
                if not is_waiting:
                    self._write(f"waiting for other processes (unfinished shards: {before})")
                is_waiting = True
                time.sleep(_POLL_SECONDS)
        progress.conclude()

    def _manifest(self, labeler: Labeler) -> Manifest:
        words = labeler.predictor.words
        return {
            "input": str(Path(self._source).expanduser().absolute()),
            "shard_size": self._shard_size,
            "format": self._format,
            "index_png": self._index_png,
            "task": labeler.task,
            "threshold": float(labeler.threshold),
            **labeler.fingerprint(),  # type: ignore[typeddict-item]  # of texts
            "classes": list(words.vocabulary.names),
            "things": sorted(words.thing_classes),
        }

    def _plan(self, manifest: Manifest) -> None:
        """Write image list and manifest, unless another process has; compare the manifest."""
        path = self._output / MANIFEST
        for folder in (CLAIMS, LABELS):
            (self._output / folder).mkdir(parents=True, exist_ok=True)
        while not path.is_file():
            with self._claims.claim("plan") as is_ours:
                if not is_ours:
                    time.sleep(_POLL_SECONDS)
                elif not path.is_file():
                    self._find_images()
                    write_json(path, manifest)
        _compare(path, read_json(path, Manifest, "the settings of the labels"), manifest)

    def _find_images(self) -> None:
        self._write(f"looking for images in {self._source}")
        images = self._output / IMAGES
        write_image_list(images, find_images(self._source, self._output))
        if not images.stat().st_size:
            raise InputError(
                f"{self._source} has no images; expected names that end with {IMAGE_ENDINGS}"
            )

    def _label_if_free(
        self, shard: int, images: ImageList, labeler: Labeler, progress: Progress
    ) -> bool:
        """Label a shard unless another process does: whether it is done now."""
        path = self._file(shard)
        with self._claims.claim(f"{shard:06d}") as is_ours:
            if is_ours and not path.is_file():  # else it was finished just now
                rows: list[Row] = []
                with ThreadPoolExecutor(_READERS) as readers:
                    entries = images.shard(shard)
                    for batch in self._read_ahead(entries, readers, labeler.batch_size):
                        found = labeler.segment([picture for _, picture in batch])
                        for (entry, _), one in zip(batch, found, strict=True):
                            rows.append(self._row(one, entry, f"{shard:06d}/{len(rows):06d}"))
                        progress.add(len(found), sum(isinstance(one, InputError) for one in found))
                        if progress.is_due():
                            progress.report(self._count_done())
                write_rows(path, rows)
                progress.report(self._count_done())
        return is_ours

    def _row(self, found: Segmentation | InputError, entry: Entry, place: str) -> Row:
        """The row of an image; its index PNG, if wanted, is written."""
        row = row_of(found, entry.name)
        if self._index_png:
            row["index_png"] = None
            if not isinstance(found, InputError):
                stem = re.sub(r"[^\w.-]", "_", Path(entry.name).stem, flags=re.ASCII)[:80]
                name = f"{INDEX}/{place}_{stem}.index.png"
                found.save(self._output / name)
                row["index_png"] = name
        return row

    def _read_ahead(
        self, entries: Sequence[Entry], readers: ThreadPoolExecutor, batch_size: int
    ) -> Iterator[list[tuple[Entry, Picture]]]:
        """Batches of images, of which the next one is read meanwhile."""
        left = iter(entries)

        def submit() -> list[tuple[Entry, Future[Picture]]]:
            batch = islice(left, batch_size)
            return [(entry, readers.submit(entry.read, self._root)) for entry in batch]

        batch = submit()
        while batch:
            following = submit()
            yield [(entry, picture.result()) for entry, picture in batch]
            batch = following

    def _file(self, shard: int) -> Path:
        return self._output / LABELS / f"{shard:06d}.{self._format}"

    def _count_done(self) -> int:
        """Images in finished shards, but for a smaller last one."""
        finished = (self._output / LABELS).glob(f"[!.]*.{self._format}")
        return self._shard_size * sum(1 for _ in finished)


@contextmanager
def _explained(output: Path) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise UnreadableFileError(
            f"{error.filename or output} cannot be written ({error.strerror}): check its "
            "permissions and the free space, or choose another --output; the same command continues"
        ) from error


def _compare(path: Path, found: Manifest, ours: Manifest) -> None:
    """Raise an InputError that names the settings which differ."""
    before: dict[str, Any] = {**found}
    changed = [
        key if key in _HASHES else f"{key} ({before[key]} there, {value} here)"
        for key, value in ours.items()
        if before[key] != value and key not in ("classes", "things")  # they are in words
    ]
    if changed:
        raise InputError(
            f"{path.parent} has labels of another {', '.join(changed)}, see {path}: repeat the "
            "arguments of the first command, or choose another --output"
        )
