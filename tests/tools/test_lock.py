"""The files that say which packages belong to the tested environment agree."""

import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.golden_cases import REPOSITORY

LOCK = (REPOSITORY / "requirements.lock").read_text()
TESTED = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}


def test_lock_file_has_the_pinned_versions_and_a_hash_for_each_package() -> None:
    lines = [line for line in LOCK.splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    assert all(found), lines
    locked = {canonicalize_name(line[1]): line[2] for line in found if line}
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for requirement in pinned:
        if requirement.marker is None or requirement.marker.evaluate(TESTED):
            name = canonicalize_name(requirement.name)
            assert f"=={locked.get(name)}" == str(requirement.specifier), "make lock was forgotten"
    assert len(locked) > len(pinned)  # also what they depend on
