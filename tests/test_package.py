"""The package in unusual surroundings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden_cases import REPOSITORY

_AS_UNKNOWN_USER = ["unshare", "-U", "--map-user=54321", "--map-group=54321"]


def _may_be_unknown() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*_AS_UNKNOWN_USER, "true"], check=False, capture_output=True).returncode
        == 0
    )


@pytest.mark.skipif(not _may_be_unknown(), reason="user namespaces are not allowed here")
def test_a_user_without_name_and_home_can_work(tmp_path: Path) -> None:
    """As containers have them."""
    program = (
        "import maskclippp, getpass, pathlib; from maskclippp.files.cache import cache_folder; "
        "print(getpass.getuser(), cache_folder())"
    )
    names = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "MASKCLIPPP_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [*_AS_UNKNOWN_USER, sys.executable, "-c", program],
        env={**kept, "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["54321", f"{tmp_path}/.cache/maskclippp"]
