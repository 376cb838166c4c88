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

from mst_transfer.compat.ops.boxes import nms, softnms
from mst_transfer.compat.ops.common import OpNotAvailableError, advice
from mst_transfer.compat.ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from mst_transfer.compat.ops.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from mst_transfer.compat.ops.roi import (
    roi_align_backward,
    roi_align_forward,
    roi_pool_backward,
    roi_pool_forward,
)


def get_compiler_version() -> str:
    """What mmcv reports as the compiler of its operators."""
    import torchvision

    return f"none (operators from torchvision {torchvision.__version__})"


def get_compiling_cuda_version() -> str:
    """What mmcv reports as the CUDA version of its operators."""
    return "not compiled by mmcv"


PROVIDED: tuple[Callable, ...] = (
    nms,
    softnms,
    roi_align_forward,
    roi_align_backward,
    roi_pool_forward,
    roi_pool_backward,
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    get_compiler_version,
    get_compiling_cuda_version,
)


def _unavailable(name: str) -> Callable[..., NoReturn]:
    def unavailable(*args: object, **kwargs: object) -> NoReturn:
        raise OpNotAvailableError(advice(name))

    unavailable.__name__ = name
    return unavailable


class ExtensionModule(ModuleType):
    """Stands for ``mmcv._ext``: the provided operators, and for any other public name one that raises when
    called.
    """

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _unavailable(name)


def make_module(spec: ModuleSpec) -> ModuleType:
    """The module object for ``mmcv._ext``."""
    module = ExtensionModule(spec.name, __doc__)
    for function in PROVIDED:
        setattr(module, function.__name__, function)
    return module


def backend() -> str:
    """'compiled' if mmcv has its own operators, 'torchvision' if this module stands in for them."""
    from importlib.util import find_spec

    spec = find_spec("mmcv._ext")
    return "torchvision" if spec is None or spec.origin == __name__ else "compiled"
