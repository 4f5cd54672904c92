"""Per-image collections of objects."""

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["Instances"]


class Instances:
    """The objects of one image, as fields of equal length.

    A field is anything with a length: a tensor [N, ...], a list, :class:`Boxes`, :class:`BitMasks`.
    Fields are read and written as attributes.

    Args:
        image_size: (height, width) of the image.
        kwargs: initial fields.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # "_fields" itself is missing while an object is unpickled or copied.
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"Cannot find field '{name}' in the given Instances!")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set a field; AssertionError if its length differs from that of the others."""
        length = len(value)
        if self._fields:
            assert len(self) == length, (
                f"Adding a field of length {length} to a Instances of length {len(self)}: {name}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Whether there is a field of this name."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Delete a field."""
        del self._fields[name]

    def get(self, name: str) -> Any:
        """The field of this name; KeyError if there is none."""
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """All fields by name, without copying the dictionary."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> "Instances":
        """A copy whose fields are converted by their ``to`` method, if they have one."""
        moved = {
            name: value.to(*args, **kwargs) if hasattr(value, "to") else value
            for name, value in self._fields.items()
        }
        return Instances(self._image_size, **moved)

    def __getitem__(self, item: int | slice | torch.Tensor) -> "Instances":
        """A selection, as :class:`Instances` even for a single object.

        Raises:
            IndexError: an integer out of range.
        """
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError("Instances index out of range!")
            item = slice(item, item + 1 or None)
        selected = {name: value[item] for name, value in self._fields.items()}
        return Instances(self._image_size, **selected)

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Empty Instances does not support __len__!")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("`Instances` object is not iterable!")

    @staticmethod
    def cat(instance_lists: list["Instances"]) -> "Instances":
        """Concatenate the objects of several collections of one image, with the same fields.

        Raises:
            ValueError: the type of a field cannot be concatenated, or image sizes differ.
        """
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        if any(other.image_size != first.image_size for other in instance_lists):
            raise ValueError("cannot concatenate Instances of different image sizes")
        result = Instances(first.image_size)
        for name in first.get_fields():
            values = [instances.get(name) for instances in instance_lists]
            result.set(name, _join(name, values))
        return result

    def __repr__(self) -> str:
        height, width = self._image_size
        count = len(self) if self._fields else 0
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return (
            f"Instances(num_instances={count}, image_height={height}, image_width={width}, "
            f"fields=[{fields}])"
        )


def _join(name: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(values)
    if isinstance(first, list):
        return [item for value in values for item in value]
    if hasattr(type(first), "cat"):
        return type(first).cat(values)
    raise ValueError(f"cannot concatenate field '{name}' of type {type(first).__name__}")
