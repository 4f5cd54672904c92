"""A device without hardware: it finds mixed devices, and counts what makes the host wait.

``with Watch() as watch:`` runs any code on the device :data:`DEVICE`. Its tensors hold real values
in ordinary memory, so that sizes that depend on values work too. As on a GPU, an operation on
tensors of two devices is an error, :class:`MixedDevicesError`. What would stop the host until the
GPU has finished is counted by the line of the package that asks for it.

The device takes PyTorch's place for new backends, in the whole process: use a process of its own.
There is no autocast on it, and no fused kernel.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from typing_extensions import override

import maskclippp

_setup_privateuseone_for_python_backend("pretended")
DEVICE = torch.device("pretended", 0)
torch.get_device_module(DEVICE).get_amp_supported_dtype = lambda: []  # asked for by autocast
_HOST = torch.device("cpu")
_PACKAGE = f"{next(iter(maskclippp.__path__))}/"

# Their results have sizes, or are numbers, that the host must know.
_WAITING = {
    *("_local_scalar_dense", "equal", "is_nonzero"),
    *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
    *("bincount", "histc"),
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_COPIES = {"_to_copy", "copy_"}
# Elsewhere a number on the host is passed along with the launch.
_NO_NUMBERS = {
    *("cat", "stack", "gather", "index_select", "index_add", "index_add_", "scatter_", "mm", "bmm"),
}


class MixedDevicesError(RuntimeError):
    """An operation met tensors on the host and on the device."""


class DeviceTensor(Tensor):
    """A tensor on :data:`DEVICE`; ``values`` are its values on the host."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> "DeviceTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        made.values = values
        return made

    @override
    def __repr__(self, **_: Any) -> str:
        return f"{type(self).__name__}({self.values!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise RuntimeError(f"{function} on {DEVICE} outside of Watch")


class Watch(TorchDispatchMode):
    """Runs operations on :data:`DEVICE` while it is entered.

    Attributes:
        waits: how often each line of the package made the host wait, and by what.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._lists = _Lists()

    @override
    def __enter__(self) -> "Watch":
        super().__enter__()
        self._lists.__enter__()
        # torch.tensor(..., device=DEVICE) then makes a tensor on the host and copies it.
        torch._C._set_only_lift_cpu_tensors(True)
        return self

    @override
    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        self._lists.__exit__(*error)
        super().__exit__(*error)

    def reset(self) -> None:
        """Count from here on."""
        self.waits.clear()

    def __torch_dispatch__(
        self,
        function: Any,
        _: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = any(isinstance(tensor, DeviceTensor) for tensor in tensors)
        target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if not on_device and (target is None or target.type != DEVICE.type):
            return function(*args, **kwargs)
        name = function.overloadpacket.__name__
        if on_device:
            self._check(name, args, tensors)
        if reason := _reason_to_wait(name, args, kwargs):
            self.waits[f"{_caller()}: {reason}"] += 1
        host_args, host_kwargs = tree_map(_on_host, (args, kwargs))
        result = function(*host_args, **host_kwargs)
        to_host = target == _HOST or (name == "copy_" and not isinstance(args[0], DeviceTensor))
        if to_host:
            return args[0] if name == "copy_" else result
        wrapped = tree_map(_on_device, result)
        if name == "_to_copy" or not on_device:
            return wrapped
        return return_and_correct_aliasing(function, args, kwargs, wrapped)

    def _check(self, name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
        """Refuse what a GPU refuses."""
        if name in _COPIES:
            return
        strangers = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor)]
        if name in _INDEXING:  # an index may be on the host
            indices = tree_leaves(args[1])
            strangers = [t for t in strangers if not any(t is index for index in indices)]
        if any(tensor.dim() or name in _NO_NUMBERS for tensor in strangers):
            shapes = [(str(tensor.device), tuple(tensor.shape)) for tensor in tensors]
            raise MixedDevicesError(f"{name} of {shapes} in {_caller()}")


class _Lists(TorchFunctionMode):
    """``tolist`` reads memory, which a tensor on the device does not have."""

    def __torch_function__(
        self,
        function: Any,
        _: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is Tensor.tolist and isinstance(args[0], DeviceTensor):
            return args[0].cpu().tolist()
        return function(*args, **(kwargs or {}))


def _reason_to_wait(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What makes the host wait for the device in an operation; "": nothing."""
    if name == "_to_copy" and kwargs.get("device") is not None:
        if isinstance(args[0], DeviceTensor):
            return "copy to the host" if torch.device(kwargs["device"]) == _HOST else ""
        return "" if kwargs.get("non_blocking") else "blocking copy to the device"
    if name == "copy_" and isinstance(args[0], DeviceTensor) != isinstance(args[1], DeviceTensor):
        to_device = isinstance(args[0], DeviceTensor)
        non_blocking = to_device and (kwargs.get("non_blocking") or args[2:] == (True,))
        return "" if non_blocking else "copy between host and device"
    if name in _INDEXING:
        indices = [index for index in tree_leaves(args[1]) if isinstance(index, Tensor)]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            return "boolean index"
        if any(index.dim() and not isinstance(index, DeviceTensor) for index in indices):
            return "index on the host"
        return ""
    if name == "repeat_interleave":
        return "" if kwargs.get("output_size") is not None else name
    return name if name in _WAITING else ""


def _on_host(leaf: Any) -> Any:
    if isinstance(leaf, DeviceTensor):
        return leaf.values
    return _HOST if isinstance(leaf, torch.device) else leaf


def _on_device(leaf: Any) -> Any:
    return DeviceTensor(leaf) if isinstance(leaf, Tensor) else leaf


def _caller() -> str:
    """The innermost line of the package that is being run, without its number."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return "(outside of the package)"
    return f"{frame.f_code.co_filename.removeprefix(_PACKAGE)} {frame.f_code.co_name}"
