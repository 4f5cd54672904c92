"""Where files are cached."""

from pathlib import Path

import pytest

from maskclippp.files.cache import cache_folder


def test_the_environment_chooses_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKCLIPPP_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.setenv("MASKCLIPPP_CACHE", "here")
    assert cache_folder() == Path.cwd() / "here"
    monkeypatch.delenv("MASKCLIPPP_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "maskclippp"
