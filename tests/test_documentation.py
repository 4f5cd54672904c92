"""The project's pages are right: commands, code, paths, names and links.

The code of docs/ is run in tests/docs/test_pages.py, tests/test_own_dataset.py,
tests/test_own_parts.py and tests/clip/test_add_encoder.py.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

import train_maskclippp
from maskclippp.cli import main as program
from maskclippp.cli import serve
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file, merge_options
from maskclippp.data.shapes.dataset import write_split
from maskclippp.engine.arguments import argument_parser
from maskclippp.words.openseg import openseg_lists
from tests.documents import (
    PAGES,
    Command,
    blocks,
    commands,
    mentioned_commands,
    text_without_blocks,
    write_files,
)
from tests.golden_cases import REPOSITORY

README, CONTRIBUTING = REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"
PACKAGE = REPOSITORY / "maskclippp"
COMMANDS = [command for page in PAGES for command in commands(page)]
MENTIONED = [command for page in PAGES for command in mentioned_commands(page)]
PROGRAMS = {"train_maskclippp.py", "my_train.py"}
RUNS = [command for command in COMMANDS if PROGRAMS & set(command.words)]
# Turns the runs of the pages into the smallest ones.
SMALL = [
    *("SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "1", "DATALOADER.NUM_WORKERS", "0"),
    *("MODEL.MASKCLIPPP.TEMPLATES", "t1"),
]


def run(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], options: list[str]) -> None:
    monkeypatch.setattr("sys.argv", [*words[1:], *options])
    train_maskclippp.command_line()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory next to the configs, with a cache of its own."""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("command", RUNS, ids=str)
def test_flags_configs_and_keys_of_a_run_are_valid(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(command.page, tmp_path)
    monkeypatch.chdir(tmp_path)
    # Launchers and their options come before the program.
    arguments = itertools.dropwhile(lambda word: word not in PROGRAMS, command.words)
    args = argument_parser().parse_args([*arguments][1:])
    cfg = get_cfg()
    named = args.config_file.replace("CONFIG", "configs/shapes/linear_psm.yaml")
    merge_config_file(cfg, named)
    merge_options(cfg, args.opts)
    custom = {entry["name"] for entry in cfg.DATASETS.CUSTOM}
    assert {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} <= custom | set(DatasetCatalog.list())


@pytest.mark.processes
def test_the_readme_trains_continues_and_evaluates(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "val"):
        write_split(split, 2, folder / "cache" / "shapes_v1" / split)
    for command in commands(README):
        if "configs/shapes/linear_psm.yaml" in command.words:
            run(monkeypatch, command.words, SMALL)
    assert Path("output/linear_psm/first/model_final.pth").is_file()
    results = Path("output/linear_psm").glob("*/inference/shapes_val/results.json")
    assert len(list(results)) == 2


def test_the_readme_evaluates_with_a_published_generator(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that the command lacks is the file of the generator."""
    (command,) = (c for c in commands(README) if "path/to/maskclippp.pth" in c.words)
    with pytest.raises(SystemExit) as error:
        run(monkeypatch, command.words, ["MODEL.DEVICE", "cpu"])
    assert error.value.code == 2
    assert re.search(r"^error: .*SEGMENTOR\.PRETRAINED.*\.pth", capsys.readouterr().err)


PROGRAM = {command.words: command for command in COMMANDS if command.words[0] == "maskclippp"}


@pytest.mark.parametrize("command", [c for w, c in PROGRAM.items() if w[1] == "download"], ids=str)
def test_the_program_knows_the_download(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a network it names the first file that it would fetch."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit):
        program.main(command.words[1:])
    missing = openseg_lists()[0].file if "vocabularies" in command.words else "pretrained/"
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize("command", [c for w, c in PROGRAM.items() if w[1] == "doctor"], ids=str)
def test_the_doctor_finds_what_a_page_says(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    program.main(command.words[1:])
    printed = capsys.readouterr().out
    assert "versions" in printed
    assert all(f"files of {word}" in printed for word in command.words if word.endswith(".yaml"))


@pytest.mark.parametrize("command", [c for w, c in PROGRAM.items() if w[1] == "predict"], ids=str)
def test_the_program_segments_the_picture_of_a_page(command: Command, folder: Path) -> None:
    (folder / "docs").symlink_to(REPOSITORY / "docs")
    program.main(command.words[1:])
    output = command.words[command.words.index("--output") + 1]
    assert list((folder / output).glob("*.png"))


@pytest.mark.parametrize("command", [c for w, c in PROGRAM.items() if w[1] == "label"], ids=str)
def test_the_program_labels_the_images_of_a_page(command: Command, folder: Path) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "picture.webp").symlink_to(REPOSITORY / "docs/images/picture.webp")
    program.main([word.replace("docs/images", "photos") for word in command.words[1:]])
    assert (folder / "labels" / "labels" / "000000.jsonl").is_file()


@pytest.mark.parametrize("command", [c for w, c in PROGRAM.items() if w[1] == "serve"], ids=str)
def test_the_program_knows_how_a_page_serves(command: Command) -> None:
    assert serve.argument_parser().parse_args(command.words[2:])


def test_the_readme_segments_from_python(folder: Path) -> None:
    (folder / "docs").symlink_to(REPOSITORY / "docs")
    found: dict[str, Any] = {}
    (block,) = blocks(README, "python")
    exec(block.text, found)
    assert found["result"].segments
    assert (folder / "segments.png").is_file()


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS + MENTIONED if c.words[0] == "make"], ids=str
)
def test_make_knows_the_target(command: Command) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for word in command.words[1:]:
        variable, is_variable, _ = word.partition("=")
        pattern = rf"^{variable} \?= " if is_variable else rf"^{word}:"
        assert re.search(pattern, makefile, re.MULTILINE), word


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS + MENTIONED if c.words[0] == "python"], ids=str
)
def test_python_finds_the_program_and_its_flags(command: Command) -> None:
    first, *rest = command.words[1:]
    if command in RUNS or first == "-c":
        return
    path = rest.pop(0).replace(".", "/") + ".py" if first == "-m" else first
    if path.startswith("mess/"):
        return  # another project's
    program = REPOSITORY / path
    # Programs share parsers with the modules next to them.
    modules = [program, *program.parent.glob("*.py"), *program.parent.glob("preparation/*.py")]
    sources = "".join(path.read_text() for path in modules)
    for word in rest:
        assert not word.startswith("--") or f'"{word}"' in sources, word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_without_blocks(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
        assert not anchor or anchor in anchors, target


def declared_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}.{name}"
        if isinstance(value, CfgNode):
            yield from declared_keys(value, f"{prefix}.{name}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_config_keys_are_declared(page: Path) -> None:
    keys = list(declared_keys(get_cfg()))
    for key in re.findall(r"`([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)+)[ `]", page.read_text()):
        assert any(declared.endswith(f".{key}") for declared in keys), key


def test_the_readme_lists_the_rooms() -> None:
    (tree,) = (block.text for block in blocks(README) if block.text.startswith("maskclippp/\n"))
    listed = re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)
    rooms = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    assert sorted(listed) == sorted({*rooms, "embedded"})
    for name in re.findall(r"^(\w+)/ ", tree, re.MULTILINE):
        assert (REPOSITORY / name).is_dir(), name


def test_contributors_read_the_layers_that_are_checked() -> None:
    configured = (REPOSITORY / "pyproject.toml").read_text().split("layers = [")[1].split("]")[0]
    checked = [set(re.findall(r"\w+", layer)) for layer in re.findall(r'"(.+)"', configured)]
    (listed,) = (block.text for block in blocks(CONTRIBUTING) if block.text.startswith("cli, app"))
    shown = [set(layer.split(", ")) for layer in listed.splitlines()]
    assert shown[:-1] == checked[1:-1]  # without the entry __main__, and the engine below all
    assert shown[-1] == {"embedded"}


def test_the_walks_of_an_image_name_what_there_is() -> None:
    """Every module and every function of the two walks through the code exists."""
    sections = CONTRIBUTING.read_text().split("\n## ")
    walks = [section for section in sections if section.startswith("An image ")]
    assert len(walks) == 2
    names = set(itertools.chain(*(re.findall(r"`([\w./]+)`", walk) for walk in walks)))
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for name in names:
        if name.endswith(".py"):
            assert any(path.match(name) for path in PACKAGE.rglob("*.py")), name
        else:
            defined = rf"^\s*(def|class) {name.rpartition('.')[2]}\b"
            assert re.search(defined, sources, re.MULTILINE), name
