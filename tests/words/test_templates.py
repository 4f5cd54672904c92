"""Prompt templates."""

import pytest

from maskclippp.words.templates import TEMPLATES, get_templates


def test_every_template_has_one_place_for_the_name() -> None:
    assert {len(TEMPLATES[name]) for name in TEMPLATES} == {1, 14, 80}
    for name in TEMPLATES:
        assert all("a zebra" in template.format("a zebra") for template in get_templates(name))


def test_unknown_templates_list_the_valid_names() -> None:
    with pytest.raises(ValueError, match=r"TEMPLATES: 't15' is not one of \['t1', 't14', 't80'\]"):
        get_templates("t15")
