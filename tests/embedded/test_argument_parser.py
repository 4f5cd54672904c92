"""The command line: options, defaults, parsing."""

import argparse
from typing import Any

import pytest
from detectron2.engine import default_argument_parser

from tests.golden_cases import cases

CASES = cases("engine_argument_parser")
OPTIONS = [option for case in CASES for option in case.info["options"]]
LINES = [(line, parsed) for case in CASES for line, parsed in case.info["parsed"].items()]


def action_of(flags: list[str]) -> argparse.Action:
    for action in default_argument_parser()._actions:
        if flags in ([*action.option_strings], [action.dest]):
            return action
    raise AssertionError(f"no option {flags}")


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option["flags"][0])
def test_option_has_the_golden_default(option: dict[str, Any]) -> None:
    action = action_of(option["flags"])
    if option["flags"] == ["--dist-url"]:
        host, port = action.default.rsplit(":", 1)
        assert host == "tcp://127.0.0.1"
        assert 49152 <= int(port) < 65536
    elif option["flags"] != ["-h", "--help"]:
        assert action.default == option["default"]


@pytest.mark.parametrize(("line", "parsed"), LINES, ids=lambda item: str(item)[:40])
def test_command_line_is_parsed_as_the_golden_one(line: str, parsed: dict[str, Any]) -> None:
    arguments = [] if line == "(none)" else line.split()
    if "exit_code" in parsed:
        with pytest.raises(SystemExit) as caught:
            default_argument_parser().parse_args(arguments)
        assert caught.value.code == parsed["exit_code"]
        return
    found = vars(default_argument_parser().parse_args(arguments))
    assert {name: value for name, value in found.items() if name != "dist_url"} == parsed


def test_options_are_the_golden_ones() -> None:
    found = {
        tuple(action.option_strings) or (action.dest,)
        for action in default_argument_parser()._actions
    }
    assert found == {tuple(option["flags"]) for option in OPTIONS}
