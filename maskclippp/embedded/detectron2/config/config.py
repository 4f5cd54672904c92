"""The configuration node."""

from typing import Any

from fvcore.common.config import CfgNode as _FvcoreCfgNode

from detectron2.config.defaults import CONFIG_VERSION, default_values
from detectron2.utils.file_io import PathManager


class CfgNode(_FvcoreCfgNode):
    """A typed tree of configuration values with ``_BASE_`` inheritance between files.

    Only the handling of files differs from yacs and fvcore: merging checks types, unknown keys are
    errors, and ``freeze()`` makes the tree read-only.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> Any:
        return PathManager.open(filename, "r")

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a YAML file and the files that its ``_BASE_`` names into this node.

        Raises:
            AssertionError: the file does not exist, or has another VERSION.
            KeyError: the file sets a key that this node does not have.
            ValueError: a value has the wrong type, or ``allow_unsafe`` is set: this engine never
                executes Python tags.
        """
        if allow_unsafe:
            raise ValueError(f"Python tags are never executed: {cfg_filename} must be plain YAML")
        assert PathManager.isfile(cfg_filename), f"Config file '{cfg_filename}' does not exist!"
        loaded = type(self)(self.load_yaml_with_base(cfg_filename))
        file_version = loaded.get("VERSION", CONFIG_VERSION)
        version = self.get("VERSION", CONFIG_VERSION)
        assert file_version <= version, (
            f"Cannot merge a v{file_version} config into a v{version} config. ({cfg_filename})"
        )
        assert file_version == version, (
            f"{cfg_filename} has VERSION {file_version}; convert it to version {version} first"
        )
        self.merge_from_other_cfg(loaded)

    def dump(self, **kwargs: Any) -> str:
        """The tree as YAML for a safe loader, keys sorted; tuples become lists."""
        return super().dump(**kwargs)


def get_cfg() -> CfgNode:
    """A new, unfrozen node with detectron2's default values."""
    return CfgNode(default_values())
