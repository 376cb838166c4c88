"""A device named ``far`` that behaves like a GPU towards the host and computes on the CPU.

A tensor on it is a wrapper; operations on tensors of both devices are refused, as CUDA refuses them. What makes the
host wait for the device, and what copies between the two, is written down with the place in our packages that asked
for it. torch registers a device for the rest of a process: use this in a process of its own.
"""

import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from simulated import require
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).resolve().parent.parent
NAME = "far"
COPIES = ("_to_copy", "copy_", "_foreach_copy_", "_copy_from")
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive")
WAITING += ("equal", "bincount", "nms", "_linalg_svd", "_linalg_eigh", "linalg_inv_ex")
require(
    "utils.backend_registration._setup_privateuseone_for_python_backend",
    "_C._set_only_lift_cpu_tensors",
    "_C._disabled_torch_function_impl",
    "Tensor._make_wrapper_subclass",
    "library.fallthrough_kernel",
)
_library = torch.library.Library("_", "IMPL")


class Event(NamedTuple):
    """What the host did: ``wait``, or ``copy`` without waiting.

    Attributes:
        what: operation, and the direction of a copy.
        file, function, line: the innermost place in our packages, or in the library that asked for it.
        ours: whether that place is in our packages, and no other library stands between it and torch.
    """

    kind: str
    what: str
    file: str
    function: str
    line: int
    ours: bool


class FarTensor(torch.Tensor):
    """A tensor whose values, ``near``, lie on the CPU; nobody but this file looks at them."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> "FarTensor":
        layout = dict(strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype)
        made = torch.Tensor._make_wrapper_subclass(cls, near.shape, device=f"{NAME}:0", **layout)
        made.near = near
        return made

    def __repr__(self, **options: Any) -> str:
        return f"FarTensor({list(self.shape)}, {self.dtype})"

    def tolist(self) -> Any:
        """The values; torch's own refuses subclasses."""
        _note("wait", "tolist")
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _dispatch(func, args, kwargs or {})


class FarDevice(TorchDispatchMode):
    """In this context the device can be used, and what the host does about it is written to ``events``."""

    events: list[Event] = []  # of the process: the backward pass has threads of its own

    def __enter__(self) -> Any:
        register()
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _dispatch(func, args, kwargs or {})


def register() -> None:
    """Makes the device known to torch, once."""
    if hasattr(torch, NAME):
        return
    module = types.ModuleType(f"torch.{NAME}")
    functions: dict[str, Callable] = dict(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
    )
    vars(module).update(functions)
    torch.utils.backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) makes a tensor on the CPU and copies it
    _library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # autocast changes nothing here
    torch.Event = FarEvent  # type: ignore[misc]


class FarEvent:
    """``torch.Event`` of this device."""

    def __init__(self, device: Any = None, **options: Any) -> None:
        assert torch.device(device).type == NAME

    def record(self, stream: Any = None) -> None:
        """Nothing: there is one stream."""

    def synchronize(self) -> None:
        """The host waits."""
        _note("wait", "Event.synchronize")


def _dispatch(func: Any, args: tuple, kwargs: dict) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    wrappers = [x for x in tensors if isinstance(x, FarTensor)]
    asked = kwargs.get("device")
    to_far = asked is not None and torch.device(asked).type == NAME
    name = func._schema.name.partition("::")[2]
    if not wrappers and not to_far:
        return func(*args, **kwargs)
    if name in COPIES:
        return _copy(func, name, args, kwargs, tensors, asked)
    _check_devices(name, args, tensors, wrappers)
    if name in WAITING or _hidden_nonzero(name, args) or (name == "repeat_interleave" and len(args) == 1):
        _note("wait", name)
    return _wrapped(func, args, kwargs, wrappers)


def _wrapped(func: Any, args: tuple, kwargs: dict, wrappers: Iterable[FarTensor]) -> Any:
    """Computes on the CPU; what an operation changes in place stays the same wrapper."""
    known = {id(wrapper.near): wrapper for wrapper in wrappers}

    def far(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else FarTensor(x)

    return tree_map(far, func(*tree_map(_near, args), **tree_map(_near, kwargs)))


def _near(x: Any) -> Any:
    if isinstance(x, FarTensor):
        return x.near
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == NAME else x


def _check_devices(name: str, args: tuple, tensors: list[Tensor], wrappers: list[FarTensor]) -> None:
    strangers = [x for x in tensors if not isinstance(x, FarTensor) and x.ndim and x.device.type != "meta"]
    if not strangers or not wrappers:
        return
    if name in ("index", "index_put", "index_put_", "_index_put_impl_") and isinstance(args[0], FarTensor):
        if not any(x is stranger for stranger in strangers for x in tree_leaves(args[2:])):
            return _note("wait", f"{name} by a tensor of the CPU")
    raise RuntimeError(
        f"Expected all tensors to be on the same device: {name} got {NAME} and {[list(x.shape) for x in strangers]} of "
        f"the CPU, in {_place()[:3]}"
    )


def _hidden_nonzero(name: str, args: tuple) -> bool:
    """Indexing by a mask: CUDA must count what it hits."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])


def _copy(func: Any, name: str, args: tuple, kwargs: dict, tensors: list[Tensor], asked: Any) -> Any:
    if name == "_to_copy":
        source, (target_far, source_far) = args[0], (asked is None, isinstance(args[0], FarTensor))
        target_far = source_far if asked is None else torch.device(asked).type == NAME
        waits = not kwargs.get("non_blocking", False)
    else:
        target, source = (args[0][0], args[1][0]) if name == "_foreach_copy_" else args[:2]
        target_far, source_far = isinstance(target, FarTensor), isinstance(source, FarTensor)
        waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if target_far != source_far:
        _note("wait" if waits else "copy", f"{name} to the {'device' if target_far else 'host'}")
    out = func(*tree_map(_near, args), **tree_map(_near, kwargs))
    if name == "_foreach_copy_":
        return None
    return args[0] if name != "_to_copy" else FarTensor(out) if target_far else out


def _place() -> tuple[str, str, int, bool]:
    """File, function and line outside of torch that the present operation comes from; the backward pass has none."""
    frame, library = sys._getframe(1), None
    while frame is not None:
        file = frame.f_code.co_filename
        path = Path(file)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("pretrain", "mst_transfer"):
            here = (str(path.relative_to(ROOT)), frame.f_code.co_qualname, frame.f_lineno)
            return (*here, True) if library is None else (*library, False)
        inside = "/site-packages/" in file and not file.partition("/site-packages/")[2].startswith("torch/")
        if inside and library is None:
            library = (file.partition("/site-packages/")[2], frame.f_code.co_qualname, frame.f_lineno)
        frame = frame.f_back
    return (*library, False) if library else ("backward or test", "", 0, False)


def _note(kind: str, what: str) -> None:
    FarDevice.events.append(Event(kind, what, *_place()))
