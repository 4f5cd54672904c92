"""A labeler with the built-in model, and small jobs for it."""

import functools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from maskclippp.labeling import Labeler
from tests.shapes_predictor import WORDS, picture


@functools.cache
def labeler() -> Labeler:
    """Shared by all tests; encodes two images together."""
    return Labeler(WORDS, model="shapes", device="cpu", batch_size=2)


def save_photos(folder: Path, count: int) -> None:
    """Images of 96 x 128 pixels, of which the second one is broken."""
    folder.mkdir()
    for index in range(count):
        image = Image.fromarray(picture(index % 5)).resize((128, 96))
        image.save(folder / f"{index:03d}.png")
    (folder / "001.png").write_bytes(b"broken")


def rows_of(output: Path) -> list[dict[str, Any]]:
    """All rows, shard by shard."""
    files = sorted((output / "labels").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def holds_claim(process: int | None, claims: Path) -> bool:
    """Whether a process works on a part; claims come and go at any time."""
    for file in claims.glob("0*"):
        with suppress(FileNotFoundError):
            if str(process) in file.read_text().split():
                return True
    return False
