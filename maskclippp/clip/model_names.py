"""Names of CLIP models: open_clip's, and EVA-CLIP's in published configs."""

import difflib
import re
from pathlib import Path
from typing import Any

import open_clip
from open_clip.factory import get_model_config

import maskclippp.clip.small_convnext  # noqa: F401  makes the trunk known to timm
from maskclippp.errors import InputError

open_clip.add_model_config(Path(__file__).parent / "model_configs")


def open_clip_name(model_name: str) -> str:
    """open_clip's name of a model; EVA-CLIP's ``EVA02-CLIP-B-16`` is its ``EVA02-B-16``."""
    return re.sub(r"^(EVA0\d)-CLIP-", r"\1-", model_name)


def model_config(model_name: str) -> dict[str, Any]:
    """open_clip's configuration of a model; an InputError lists the nearest valid names."""
    config = get_model_config(open_clip_name(model_name))
    if config is None:
        names = open_clip.list_models()
        near = nearest(open_clip_name(model_name), names)
        raise InputError(
            f"MODEL_NAME: {model_name!r} is not a model of open_clip"
            + (f"; did you mean {' or '.join(near)}?" if near else f"; valid names: {names}")
        )
    return dict(config)


def embedding_width(model_name: str) -> int:
    """Width D of the joint embedding of a model."""
    return int(model_config(model_name)["embed_dim"])


def nearest(name: str, valid: list[str]) -> list[str]:
    """Up to three valid names similar to a wrong one, ignoring case."""
    by_lower = {candidate.lower(): candidate for candidate in valid}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)
    return [by_lower[candidate] for candidate in near]
