"""The program of docs/export.md: numpy, onnxruntime and Pillow give what the predictor gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskclippp import Predictor
from maskclippp.cli.main import main
from tests.documents import blocks, commands
from tests.golden_cases import REPOSITORY

pytest.importorskip("onnxruntime")
PAGE = REPOSITORY / "docs" / "export.md"
PICTURE = REPOSITORY / "docs" / "images" / "picture.webp"


@pytest.mark.processes
def test_another_program_segments_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").symlink_to(REPOSITORY / "docs")
    monkeypatch.chdir(tmp_path)
    (command,) = commands(PAGE)
    width, height = Image.open(PICTURE).size
    # Tracing for one size takes less time.
    main([*command.words[1:], "--image-size", str(height), str(width)])
    found: dict[str, Any] = {}
    (block,) = blocks(PAGE, "python")
    exec(block.text, found)
    predictor = Predictor.from_pretrained("shapes", device="cpu", dtype="float32")
    predictor.set_classes(command.words[command.words.index("--classes") + 1])
    expected = predictor(str(PICTURE)).labels
    assert np.mean(found["labels"] == np.asarray(expected)) > 0.999
    assert "pink brick wall" in found["names"]
