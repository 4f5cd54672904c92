"""Prompt templates: sentences with one ``{}`` for a synonym."""

from open_clip import OPENAI_IMAGENET_TEMPLATES

from maskclippp.errors import check_choice

_SIZES = ("small", "medium", "large")

# The ViLD-style prompts. A trained LinearPSM weighs templates by position: the order is fixed.
_T14 = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "t1": ("a photo of a {}.",),
    "t14": _T14,
    # open_clip ships CLIP's 80 ImageNet prompts as functions of the class name.
    "t80": tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES),
}


def get_templates(name: str, key: str = "TEMPLATES") -> tuple[str, ...]:
    """The templates called ``name``; an InputError names the config ``key`` and the valid names."""
    check_choice(f"MODEL.MASKCLIPPP.{key}:", name, sorted(TEMPLATES))
    return TEMPLATES[name]
