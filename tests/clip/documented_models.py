"""What docs/encoders.md says about models."""

import re

from tests.golden_cases import REPOSITORY


def refused_models(tower: str) -> set[str]:
    """The models whose ``image`` or ``text`` tower docs/encoders.md lists as refused."""
    text = (REPOSITORY / "docs" / "encoders.md").read_text()
    section = text.split("### Refused models", 1)[1].split("\n#", 1)[0]
    rows = re.findall(rf"^\| (.+?) \| {tower} \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall("`(.+?)`", row)}
