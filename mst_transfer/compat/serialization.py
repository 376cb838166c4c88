"""Safe loading of mmengine checkpoints, and their writing: atomic, with a checksum.

torch loads with ``weights_only=True``: a checkpoint may hold tensors and plain containers only, since
unpickling anything else can run code. mmengine's checkpoints also hold log histories; exactly the types of
those are allowed here. Nothing is ever loaded with ``weights_only=False``.
"""

import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mst_transfer.files.atomic_files import write_atomically
from mst_transfer.files.checksums import verify_checkpoint, write_checkpoint


def history_statistic(owner: object, name: str) -> Callable:
    """Stands for ``getattr`` in a checkpoint: log histories name their methods through it.

    Raises:
        pickle.UnpicklingError: For any other object or name.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is HistoryBuffer and name in ("min", "max", "current", "mean"):
        method: Callable = getattr(HistoryBuffer, name)
        return method
    raise pickle.UnpicklingError(
        f"weights_only loading refuses getattr({owner!r}, {name!r}): mmengine writes no such checkpoint"
    )


def allowed_types() -> list:
    """What an mmengine checkpoint holds beside tensors: log histories, which are numpy arrays of numbers.

    Names as numpy 1 and numpy 2 write them, so that checkpoints move between the two.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray  # numpy 2, numpy 1
    reconstruct, scalar = multiarray._reconstruct, multiarray.scalar
    names = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    names += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    names += [(history_statistic, f"{builtins}.getattr") for builtins in ("builtins", "__builtin__")]
    dtypes = {type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "uint8", "bool")}
    return [HistoryBuffer, np.ndarray, np.dtype, *dtypes, *names]


def install() -> None:
    """Allows the types, makes mmengine write files atomically and load from the web safely. Idempotent."""
    import torch
    from mmengine.fileio import LocalBackend, register_backend
    from mmengine.fileio import io as mmengine_io
    from mmengine.runner import checkpoint

    torch.serialization.add_safe_globals(allowed_types())

    class AtomicLocalBackend(LocalBackend):
        """mmengine's local file backend, whose files appear whole or not at all."""

        def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
            write_atomically(filepath, lambda temporary: _write_bytes(temporary, obj), len(obj))

    register_backend("local", AtomicLocalBackend, force=True, prefixes="")
    mmengine_io.backend_instances.clear()

    checkpoint.load_url = partial(torch.hub.load_state_dict_from_url, weights_only=True)
    if hasattr(checkpoint, "_safe_torch_load"):  # of the maintained fork: it loads what is refused again, unsafely
        checkpoint._safe_torch_load = lambda *args, **kwargs: checkpoint.torch.load(*args, **kwargs)
    if not hasattr(checkpoint.save_checkpoint, "of_mmengine"):
        theirs = checkpoint.save_checkpoint
        ours = checkpoint.save_checkpoint = _with_checksum(theirs)
        for name in ("mmengine.runner", "mmengine.runner.runner"):  # which have it by name, if they came first
            if getattr(sys.modules.get(name), "save_checkpoint", None) is theirs:
                sys.modules[name].save_checkpoint = ours  # type: ignore[attr-defined]
        checkpoint.CheckpointLoader.register_scheme(
            prefixes="", loader=_verified(checkpoint.load_from_local), force=True
        )


def _with_checksum(of_mmengine: Callable) -> Callable:
    """mmengine's ``save_checkpoint``, straight to the disk and with a checksum where the file is a local one."""

    def save_checkpoint(content: Any, filename: str, file_client_args: Any = None, backend_args: Any = None) -> None:
        if "://" in str(filename) or file_client_args is not None or backend_args is not None:
            of_mmengine(content, filename, file_client_args=file_client_args, backend_args=backend_args)
        else:
            write_checkpoint(filename, content)

    save_checkpoint.of_mmengine = of_mmengine  # type: ignore[attr-defined]
    return save_checkpoint


def _verified(load: Callable) -> Callable:
    """mmengine's loader of local files, which refuses broken ones."""

    def load_whole(filename: str, map_location: Any) -> Any:
        path = Path(filename).expanduser()
        if path.is_file():
            verify_checkpoint(path)
        return load(filename, map_location)

    return load_whole


def _write_bytes(path: str, content: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(content)
