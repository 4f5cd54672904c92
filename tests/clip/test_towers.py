"""Parts of a fused projection."""

import pytest
import torch
from torch.testing import assert_close

from maskclippp.clip.towers import project_fused


@pytest.mark.parametrize("parts", ["q", "k", "v", "qk", "kv", "qkv"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_query_key_and_value_have_their_rows(parts: str, has_bias: bool) -> None:
    tokens, weight = torch.rand(2, 3, 4), torch.rand(15, 4)
    bias = torch.rand(15) if has_bias else None
    whole = torch.nn.functional.linear(tokens, weight, bias).split(5, dim=-1)
    found = project_fused(tokens, weight, bias, parts)
    assert len(found) == len(parts)
    for part, letter in zip(found, parts, strict=True):
        assert_close(part, whole["qkv".index(letter)])
