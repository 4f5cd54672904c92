"""What people name as input: images, folders, patterns, videos and cameras."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskclippp.engine.interruption import Interrupted
from maskclippp.errors import InputError, MissingFileError, UnreadableFileError
from maskclippp.predictor.images import IMAGE_ENDINGS, images_of

VIDEO_ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
CAMERA = "camera"
_DEFAULT_RATE = 25.0


def expand(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The images, and the videos and cameras, that the inputs name.

    Raises:
        MissingFileError: an input does not exist, or a pattern that nothing matches.
        InputError: a file of another kind, or a folder without images.
    """
    images: list[Path] = []
    videos: list[str] = []
    for name in inputs:
        if _is_camera(name):
            videos.append(name)
            continue
        path = Path(name).expanduser()
        if path.is_dir():
            images += images_of(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  also absolute
        found = [path] if path.exists() else [Path(match) for match in matches]
        if not found:
            raise MissingFileError(
                f"{name} does not exist (looked in {Path.cwd()}); expected images, folders, "
                f"patterns such as 'photos/*.jpg', videos, or {CAMERA}"
            )
        for file in found:
            if file.suffix.lower() in VIDEO_ENDINGS:
                videos.append(str(file))
            elif file.suffix.lower() in IMAGE_ENDINGS:
                images.append(file)
            elif len(found) == 1:
                raise InputError(
                    f"{file} is neither an image {IMAGE_ENDINGS} nor a video {VIDEO_ENDINGS}"
                )
    return list(dict.fromkeys(images)), videos


def output_stems(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Where the files of each image go, without their endings; no two images share one.

    Folders below the common one are kept; images that differ in their ending only keep it.
    """
    if not images:
        return {}
    folders = [image.absolute().parent for image in images]
    common = Path(*_common(folders))
    stems: dict[Path, list[Path]] = {}
    for image, folder in zip(images, folders, strict=True):
        stems.setdefault(output / folder.relative_to(common) / image.stem, []).append(image)
    return {
        image: stem if len(sharing) == 1 else stem.with_name(image.name)
        for stem, sharing in stems.items()
        for image in sharing
    }


class Video:
    """The frames of a video file or a camera, RGB [H, W, 3].

    Args:
        name: a path, ``camera``, or ``camera:1`` for the second one.

    Raises:
        UnreadableFileError: it cannot be opened, or has no frame.
    """

    def __init__(self, name: str) -> None:
        import cv2

        # What cannot be read is told in one sentence, ours.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self.name = name
        number = name.partition(":")[2] or "0"
        source: Any = int(number) if _is_camera(name) else name
        self._capture = cv2.VideoCapture(source)
        self._first: Any = self._capture.read()[1] if self._capture.isOpened() else None
        if self._first is None:
            what = (
                "no camera of that number" if _is_camera(name) else "it has no frame, or is damaged"
            )
            raise UnreadableFileError(f"{name} cannot be read: {what}")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or _DEFAULT_RATE
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 else None

    @property
    def path(self) -> Path:
        """What its results are named after."""
        return Path(self.name.replace(":", "_") if _is_camera(self.name) else self.name)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        frame = self._first
        try:
            while frame is not None:
                yield np.ascontiguousarray(frame[..., ::-1])
                frame = self._capture.read()[1]
        finally:
            self._capture.release()


class VideoFile:
    """Writes RGB frames to an MP4 file, which appears when the block ends without an error."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._partial = path.with_name(f".{path.name}.partial.mp4")
        self._writer: Any = None

    def __enter__(self) -> "VideoFile":
        return self

    def write(self, frame: npt.NDArray[np.uint8]) -> None:
        """Append a frame; all have the size of the first."""
        import cv2

        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = (frame.shape[1], frame.shape[0])
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._partial), codec, self._rate, size)
            if not self._writer.isOpened():
                raise UnreadableFileError(f"{self._path} cannot be written: check the folder")
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._writer is not None:
            self._writer.release()
        # An interrupted recording is kept: a camera has no other end.
        if kind in (None, KeyboardInterrupt, Interrupted) and self._partial.exists():
            self._partial.replace(self._path)
        self._partial.unlink(missing_ok=True)


def _is_camera(name: str) -> bool:
    return name == CAMERA or (name.startswith(f"{CAMERA}:") and name[len(CAMERA) + 1 :].isdigit())


def _common(folders: Sequence[Path]) -> list[str]:
    """The parts that all paths begin with."""
    common = []
    for parts in zip(*(folder.parts for folder in folders), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return common
