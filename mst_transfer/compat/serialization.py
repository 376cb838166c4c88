"""Safe loading and atomic writing of mmengine checkpoints.

torch loads with ``weights_only=True``: a checkpoint may hold tensors and plain containers only, since
unpickling anything else can run code. mmengine's checkpoints also hold log histories; exactly the types of
those are allowed here. Nothing is ever loaded with ``weights_only=False``.
"""

import os
import pickle
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

STEP_CHECKPOINT = re.compile(r"(?:epoch|iter)_(\d+)\.pth")


def write_atomically(path: str | os.PathLike, write: Callable[[str], None]) -> None:
    """Writes a file under a temporary name beside it, then renames it: a reader sees all of it or none.

    Args:
        path: The file; its folder is made if missing. An older file is replaced.
        write: Called with the temporary path, which it must fill.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


def latest_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The checkpoint to resume a run from: the one that ``last_checkpoint`` names, else the one of the
    highest step.

    Returns:
        Its path, or None if ``work_dir`` has no checkpoint.
    """
    folder = Path(work_dir)
    pointer = folder / "last_checkpoint"
    if pointer.is_file():
        named = Path(pointer.read_text(encoding="utf-8").strip())
        for path in (named, folder / named.name):
            if path.is_file():
                return path
    steps = {int(match[1]): path for path in folder.glob("*.pth") if (match := STEP_CHECKPOINT.fullmatch(path.name))}
    return steps[max(steps)] if steps else None


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
            write_atomically(filepath, lambda temporary: _write_bytes(temporary, obj))

    register_backend("local", AtomicLocalBackend, force=True, prefixes="")
    mmengine_io.backend_instances.clear()

    checkpoint.load_url = partial(torch.hub.load_state_dict_from_url, weights_only=True)


def _write_bytes(path: str, content: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.write(content)
