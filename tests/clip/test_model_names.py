"""Model names of published configs and of open_clip."""

import pytest

from maskclippp.clip.model_names import embedding_width, model_config, open_clip_name


@pytest.mark.parametrize(
    ("published", "name"),
    [
        ("EVA02-CLIP-L-14-336", "EVA02-L-14-336"),
        ("EVA02-CLIP-B-16", "EVA02-B-16"),
        ("EVA01-CLIP-g-14-plus", "EVA01-g-14-plus"),
        ("EVA02-B-16", "EVA02-B-16"),
        ("convnext_large_d_320", "convnext_large_d_320"),
        ("RN50x16", "RN50x16"),
        ("ViT-L-14-CLIPA", "ViT-L-14-CLIPA"),
    ],
)
def test_names_of_the_eva_clip_package_are_translated(published: str, name: str) -> None:
    assert open_clip_name(published) == name
    assert model_config(published) == model_config(name)


def test_width_of_the_joint_embedding() -> None:
    assert embedding_width("EVA02-CLIP-L-14-336") == 768


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("convnext_base_w_230", "convnext_base_w_320"),
        ("rn50x16", "RN50x16"),
        ("EVA02-CLIP-L-14-366", "EVA02-L-14-336"),
    ],
)
def test_unknown_names_suggest_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"MODEL_NAME: '{wrong}' is not .* mean .*{near}"):
        model_config(wrong)


def test_names_like_no_other_list_all() -> None:
    with pytest.raises(ValueError, match=r"valid names: \[.*'RN50x16'"):
        model_config("no such model at all")
