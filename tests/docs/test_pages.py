"""What the pages of docs/ show runs: code, configs, and the commands of the first steps."""

from pathlib import Path
from typing import Any

import pytest

import train_maskclippp
from maskclippp import Predictor
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.data.shapes.dataset import write_split
from tests.documents import blocks, commands
from tests.golden_cases import REPOSITORY

DOCS = REPOSITORY / "docs"
# A block that begins so is compiled only: its first line says what it needs.
NEEDS = "# Needs "
OWN_TESTS = {"export.md"}  # tests/export/test_page.py
CODE = {
    page: [b for b in blocks(page, "python") if not b.file]
    for page in DOCS.glob("*.md")
    if page.name not in OWN_TESTS
}
CONFIGS = [(page, b) for page in DOCS.glob("*.md") for b in blocks(page, "yaml") if not b.file]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory like the repository, with a cache of its own."""
    for name in ("configs", "docs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("page", [p for p, code in CODE.items() if code], ids=lambda p: p.name)
def test_the_code_of_a_page_runs(page: Path, folder: Path) -> None:
    """Block after block, with the names of the blocks above."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in CODE[page]:
        code = compile(block.text, f"{folder / page.name}", "exec")
        if not block.text.startswith(NEEDS):
            exec(code, names)


@pytest.mark.parametrize(("page", "block"), CONFIGS, ids=lambda x: getattr(x, "name", ""))
def test_a_config_of_a_page_is_valid(page: Path, block: Any, folder: Path) -> None:
    (folder / "page.yaml").write_text(block.text)
    merge_config_file(get_cfg(), "page.yaml")


@pytest.mark.processes
def test_the_first_steps_lead_to_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        write_split(split, 2, folder / "cache" / "shapes_v1" / split)
    small = ("SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "1", "DATALOADER.NUM_WORKERS", "0")
    for command in commands(DOCS / "first_steps.md"):
        program, *words = command.words
        if program == "python":
            options = [*small, "MODEL.MASKCLIPPP.TEMPLATES", "t1"]
            monkeypatch.setattr("sys.argv", [*words, *options])
            train_maskclippp.command_line()
    for run in ("mine", "mine_again"):
        assert Path(f"output/linear_psm/{run}/inference/shapes_val/results.json").is_file()
    run_folder = "output/linear_psm/mine"
    predictor = Predictor.from_pretrained(run_folder, generator="superpixels", device="cpu")
    predictor.set_classes(["blue ring", "gray brick wall"])
    assert predictor("docs/images/picture.webp").segments
