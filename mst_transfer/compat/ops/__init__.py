"""mmcv's compiled operators from torchvision, for an mmcv that was installed without them (mmcv-lite).

The functions have the names and signatures with which ``mmcv.ops`` calls its extension module
``mmcv._ext``: results go into tensors that the caller allocated. They run on whatever device torchvision's
operators run on. Half precision is computed in float32. Every other operator of mmcv raises when it is
called and says how to get it.
"""

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

from mst_transfer.compat.ops import boxes, deform_conv, focal_loss
from mst_transfer.compat.ops.common import OpNotAvailableError, advice


def get_compiler_version() -> str:
    """What mmcv reports as the compiler of its operators."""
    import torchvision

    return f"none (operators from torchvision {torchvision.__version__})"


def get_compiling_cuda_version() -> str:
    """What mmcv reports as the CUDA version of its operators."""
    return "not compiled by mmcv"


def _unavailable(name: str) -> Callable[..., NoReturn]:
    def unavailable(*args: object, **kwargs: object) -> NoReturn:
        raise OpNotAvailableError(advice(name))

    unavailable.__name__ = name
    return unavailable


def line_nms(*args: object, **kwargs: object) -> NoReturn:
    """Of the fork's mmcv. Its mmdet prints a warning at every start where ``mmcv.ops`` has none."""
    raise OpNotAvailableError("mmcv operator 'line_nms' is not available: only a compiled onedl-mmcv has it")


def install() -> None:
    """Completes ``mmcv.ops``. Idempotent."""
    import mmcv.ops as theirs

    if not hasattr(theirs, "line_nms"):
        theirs.line_nms = line_nms


class ExtensionModule(ModuleType):
    """Stands for ``mmcv._ext``: the provided operators; any other public name is one that raises when called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _unavailable(name)


def make_module(spec: ModuleSpec) -> ModuleType:
    """The module object for ``mmcv._ext``, with the public functions of the modules beside this one."""
    module = ExtensionModule(spec.name, __doc__)
    vars(module).update({one.__name__: one for one in (get_compiler_version, get_compiling_cuda_version)})
    for source in (boxes, deform_conv, focal_loss):
        own = {name: one for name, one in vars(source).items() if getattr(one, "__module__", "") == source.__name__}
        vars(module).update({name: one for name, one in own.items() if not name.startswith("_")})
    return module


def backend() -> str:
    """'compiled' if mmcv has its own operators, 'torchvision' if this module stands in for them."""
    from importlib.util import find_spec

    spec = find_spec("mmcv._ext")
    return "torchvision" if spec is None or spec.origin == __name__ else "compiled"
