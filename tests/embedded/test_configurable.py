"""@configurable: every golden call."""

from collections.abc import Callable
from typing import Any

import pytest
from detectron2.config import CfgNode, configurable

from tests.golden_cases import cases

ITEMS = [item for case in cases("engine_configurable") for item in case.info["cases"]]
CFG = CfgNode({"A": 1, "B": 22})
Arguments = tuple[Any, Any, Any]


class Plain:
    @configurable
    def __init__(self, a: Any, b: Any = 2, c: Any = 3) -> None:
        self.arguments = (a, b, c)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"a": cfg.A, "b": cfg.B}


class Forced(Plain):
    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "a": 100}


class ExtraPositional(Plain):
    @classmethod
    def from_config(cls, cfg: CfgNode, b: int) -> dict[str, Any]:  # type: ignore[override]
        return {"a": cfg.A, "b": b * 10, "c": 7}


class TakesEverything:
    @configurable
    def __init__(self, a: Any, seen: Any = None) -> None:
        self.arguments = [a, [["seen", seen]]]

    @classmethod
    def from_config(cls, cfg: CfgNode, **kw: Any) -> dict[str, Any]:
        return {"a": cfg.A, "seen": sorted(kw)}


class WithoutFromConfig:
    @configurable
    def __init__(self, a: Any = 1) -> None:
        self.arguments = (a,)


class InstanceMethod:
    @configurable
    def __init__(self, a: Any = 1) -> None:
        self.arguments = (a,)

    def from_config(self, cfg: CfgNode) -> dict[str, Any]:
        return {"a": cfg.A}


class WrongFirst:
    @configurable
    def __init__(self, a: Any = 1) -> None:
        self.arguments = (a,)

    @classmethod
    def from_config(cls, config: CfgNode) -> dict[str, Any]:
        return {"a": config.A}


@configurable(from_config=lambda cfg: {"a": cfg.A, "b": cfg.B, "c": 5})
def function(a: Any, b: Any = 4, c: Any = 3) -> Arguments:
    return (a, b, c)


BEHAVIORS: dict[str, Callable[[], Any]] = {
    "class, explicit keywords (a=9)": lambda: Plain(a=9).arguments,
    "class, positional (9, 8)": lambda: Plain(9, 8).arguments,
    "class, cfg positional": lambda: Plain(CFG).arguments,
    "class, cfg as keyword cfg=": lambda: Plain(cfg=CFG).arguments,
    "class, cfg plus keyword override b=5 (not an argument of from_config)": (
        lambda: Plain(CFG, b=5).arguments
    ),
    "class, cfg plus keyword c=5 that from_config does not return": (
        lambda: Plain(CFG, c=5).arguments
    ),
    "class, cfg plus an unknown keyword zz=1": lambda: Plain(CFG, zz=1).arguments,
    "class, cfg plus a positional that from_config cannot take": lambda: Plain(CFG, 1).arguments,
    "subclass with its own from_config (a forced to 100)": lambda: Forced(CFG).arguments,
    "subclass, explicit": lambda: Forced(1).arguments,
    "from_config with an extra positional (b=3 -> 30)": lambda: ExtraPositional(CFG, 3).arguments,
    "same, as keyword b=3": lambda: ExtraPositional(CFG, b=3).arguments,
    "same, c=9 overrides what from_config returned": (
        lambda: ExtraPositional(CFG, b=3, c=9).arguments
    ),
    "from_config with **kw gets every keyword itself": lambda: TakesEverything(CFG, x=1).arguments,
    "class without from_config, called with cfg": lambda: WithoutFromConfig(CFG),
    "class without from_config, called without cfg": lambda: WithoutFromConfig(1),
    "from_config is not a classmethod": lambda: InstanceMethod(CFG),
    "from_config whose first parameter is not named cfg": lambda: WrongFirst(CFG),
    "function with from_config, explicit": lambda: function(1),
    "function, cfg": lambda: function(CFG),
    "function, cfg plus c=8": lambda: function(CFG, c=8),
    "function, cfg plus b=8 (override)": lambda: function(CFG, b=8),
    "function, cfg as keyword": lambda: function(cfg=CFG),
    "attribute from_config present on the decorated function": (
        lambda: hasattr(function, "from_config")
    ),
}


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["case"])
def test_call_gives_the_golden_arguments_or_error(item: dict[str, Any]) -> None:
    call = BEHAVIORS[item["case"]]
    if "error" in item:
        with pytest.raises(
            {"TypeError": TypeError, "AttributeError": AttributeError}[item["error"]]
        ):
            call()
        return
    result = call()
    assert (list(result) if isinstance(result, tuple) else result) == item["ok"]
