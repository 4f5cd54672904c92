"""The program ``maskclippp``: fast help, an example per command, errors as one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

import maskclippp
from maskclippp.cli.main import COMMANDS, main
from tests.golden_cases import REPOSITORY


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the program prints before it ends with status 0."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output_of(capsys, "--help")
    assert all(f"  {command}" in shown for command in COMMANDS)
    assert "example" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = output_of(capsys, command, "--help")
    assert shown.startswith(f"usage: maskclippp {command}")
    assert "example" in shown
    assert f"  maskclippp {command}" in shown


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(capsys, "--version") == f"maskclippp {maskclippp.__version__}\n"


@pytest.mark.parametrize("arguments", [["trian"], []])
def test_wrong_commands_end_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "in"], "one of the arguments --classes --vocabulary is required"),
        (
            ["export", "--classes", "a;b", "--output", "o", "--format", "torchscript"],
            "'torchscript'",
        ),
        (["serve", "--port", "x"], "invalid int value: 'x'"),
        (["train", "--num-gpus", "x"], "invalid int value: 'x'"),
        (["models", "some"], "unrecognized arguments: some"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert line.endswith(f"; see maskclippp {arguments[0]} --help")


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_help_does_not_import_torch(options: list[str]) -> None:
    """It would take seconds."""
    program = f"""
import runpy, sys
sys.orig_argv[1:] = [*{options}, "-m", "maskclippp"]
sys.argv[1:] = ["--help"]
sys.path.insert(0, {str(REPOSITORY)!r})
try:
    runpy.run_module("maskclippp", run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_help_of_no_command_imports_torch() -> None:
    program = f"""
import sys
from maskclippp.cli.main import main
for command in {list(COMMANDS)}:
    try:
        main([command, "--help"])
    except SystemExit:
        assert "torch" not in sys.modules, command
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_wrong_input_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "--num-gpus", "0", "--config-file", "absent.yaml"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: Config file 'absent.yaml' does not exist!\n"


def test_a_shipped_config_is_named_where_there_is_no_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``pip install`` puts the configs of every example into the package."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["config", "configs/shapes/linear_psm.yaml"])
    shipped = capsys.readouterr().err.rpartition("The installed package has it: ")[2].strip()
    main(["config", shipped])
    assert "NAME: LinearPSM" in capsys.readouterr().out


def test_a_run_in_a_process_ends_with_status_2(tmp_path: Path) -> None:
    """Here the package is imported without its parts; the command registers them."""
    config = REPOSITORY / "configs" / "shapes" / "plain_clip.yaml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "maskclippp", "eval", "--config-file", str(config)),
            *("--num-gpus", "0", "MODEL.WEIGHTS", str(tmp_path / "absent.pth")),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "MASKCLIPPP_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"error: checkpoint {tmp_path}/absent.pth does not exist" in done.stderr
