"""The command ``serve`` up to its page; tests/app/test_page.py looks at the page."""

import importlib.metadata

import pytest

from maskclippp.cli.main import main


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--help"])
    assert stopped.value.code == 0
    assert "maskclippp serve --model default" in capsys.readouterr().out


@pytest.mark.parametrize("found", [None, "5.49.1"])
def test_without_gradio_one_sentence_says_what_to_install(
    found: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        if found is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    message = error_of(capsys)
    assert message.startswith("error: the page needs ")
    assert "pip install 'maskclippp[demo]'" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port: expected a number in 1..65535"),
        (["--model", "a", "b", "--weights", "w.pth"], "--weights is of one model"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(capsys, *arguments)
