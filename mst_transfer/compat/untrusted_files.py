"""Files of the libraries' formats that would run code when they are read: refused, or read without running it.

mmengine reads an annotation or proposal file by its ending, ``.pkl`` with ``pickle`` and ``.yaml`` with the loader that
makes any Python object; its checkpoint loaders leave ``weights_only`` to torch, which an environment variable can turn
off; mmseg and mmdet unpickle images and class hierarchies if a config says so.
"""

import pickle
import re
import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from mst_transfer.configs.saved import ConfigRefusedError, are_types_registered_only

_RUNS_CODE = "unpickling can run any code"
_NEXT_STEP = f"{_RUNS_CODE}. Next step: write the data as JSON, where the file was made"


class RefusedFileError(ValueError):
    """Reading the file could run code."""


class _WithFunctions:
    """A module, some of whose functions are others."""

    def __init__(self, module: ModuleType, **functions: Any) -> None:
        self.__dict__.update(functions, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def _adapt_handlers(module: ModuleType) -> None:
    """Pickles are still written by mmengine's ``dump``, but not read."""
    import yaml

    class PickleHandler(module.PickleHandler):  # type: ignore[name-defined]
        def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
            raise RefusedFileError(f"it is a pickle, and {_NEXT_STEP}")

    class YamlHandler(module.YamlHandler):  # type: ignore[name-defined]
        def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
            SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            try:
                return yaml.load(file, Loader=SafeLoader)
            except yaml.constructor.ConstructorError as error:
                raise RefusedFileError(f"{error.problem}; YAML may hold plain data only") from error

    for ending, handler in module.file_handlers.items():
        if isinstance(handler, module.PickleHandler):
            module.file_handlers[ending] = PickleHandler()
        elif isinstance(handler, module.YamlHandler):
            module.file_handlers[ending] = YamlHandler()


def _adapt_load(module: Any) -> None:
    """A refusal names the file."""
    original = module.load

    @wraps(original)
    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(file, *args, **kwargs)
        except RefusedFileError as error:
            raise RefusedFileError(f"{getattr(file, 'name', file)} was refused: {error}") from error

    module.load = load


def _adapt_torch_load(module: Any) -> None:
    """``weights_only=True`` said by the caller, so that no environment variable changes it."""
    torch = module.torch

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return torch.load(file, *args, **{**kwargs, "weights_only": True})
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            raise RefusedFileError(
                f"{file if isinstance(file, str) else 'a checkpoint'} was refused: "
                f"{f'it holds {found[1]}, and' if found else 'it is damaged or no file of weights, and'} {_RUNS_CODE}. "
                "Next step: save the weights anew where the file was made; mst inspect says whether it can be read"
            ) from error

    module.torch = _WithFunctions(torch, load=load)


def _adapt_numpy_load(module: Any) -> None:
    numpy = module.np

    def load(*args: Any, **kwargs: Any) -> Any:
        return numpy.load(*args, **{**kwargs, "allow_pickle": False})

    module.np = _WithFunctions(numpy, load=load)


def _adapt_data_from_bytes(module: Any) -> None:
    original = module.datafrombytes

    def datafrombytes(content: bytes, backend: str = "numpy") -> Any:
        if backend == "pickle":
            raise RefusedFileError(f"an image with decode_backend='pickle' was refused: {_NEXT_STEP}")
        return original(content, backend)

    module.datafrombytes = datafrombytes


def _adapt_registry(module: Any) -> None:
    """A ``type`` that is not registered is not imported, where a config is only looked at."""
    original = module.get_object_from_string

    @wraps(original)
    def get_object_from_string(name: str) -> Any:
        if are_types_registered_only():
            raise ConfigRefusedError(f"type={name!r} is not registered, and nothing is imported for a config as data")
        return original(name)

    module.get_object_from_string = get_object_from_string


# Module → what is adapted in it, and how.
_ADAPTATIONS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "mmengine.fileio.handlers.registry_utils": ("file_handlers", _adapt_handlers),
    "mmengine.fileio.io": ("load", _adapt_load),
    "mmengine.registry.registry": ("get_object_from_string", _adapt_registry),
    "mmengine.runner.checkpoint": ("torch", _adapt_torch_load),
    "mmengine.utils.dl_utils.hub": ("torch", _adapt_torch_load),
    "mmdet.datasets.openimages": ("np", _adapt_numpy_load),
    "mmseg.utils.io": ("datafrombytes", _adapt_data_from_bytes),
}
ADAPTED_MODULES = tuple(_ADAPTATIONS)


def install() -> None:
    """Adapts those of the modules that are imported; one that is just being imported gets its turn. Idempotent."""
    for name, (attribute, adapt) in _ADAPTATIONS.items():
        module: Any = sys.modules.get(name)
        if hasattr(module, attribute) and not hasattr(module, "_reads_without_running"):
            adapt(module)
            module._reads_without_running = True
