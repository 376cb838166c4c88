"""Files that would run code if they were unpickled: each writes the canary that it is given."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Harm:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def harms(canary: Path) -> dict[str, Harm]:
    """Ways to run code while a pickle is read."""
    touch = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": Harm(os.system, f"touch '{canary}'"),
        "eval": Harm(eval, touch),
        "exec": Harm(exec, touch),
        "open": Harm(open, str(canary), "w"),
        "path": Harm(Path.touch, canary),
        "pickle_in_pickle": Harm(pickle.loads, pickle.dumps(Harm(eval, touch))),
        "getattr_chain": Harm(getattr, Harm(open, str(canary), "w"), "close"),
        "torch_hub": Harm(torch.hub._load_local, str(hub_repository(canary)), "model"),
        "numpy_object": Harm(np.load, str(object_array(canary)), None, True),
    }


def hub_repository(canary: Path) -> Path:
    folder = canary.parent / "repository"
    folder.mkdir(exist_ok=True)
    (folder / "hubconf.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    return folder


def object_array(canary: Path) -> Path:
    path = canary.parent / "objects.npy"
    np.save(path, np.array([Harm(eval, f"open({str(canary)!r}, 'w').close()")], dtype=object), allow_pickle=True)
    return path


def write_legacy(content: Any, path: Path) -> None:
    """torch before 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(content: Any, path: Path) -> None:
    """No torch at all: what pickle.load of a careless program would read."""
    path.write_bytes(pickle.dumps(content))


def write_tar(content: Any, path: Path, harmless: tuple[str, ...] = ("sys_info", "storages", "tensors")) -> None:
    """torch before 0.1.10: a tar whose members are pickles, all but the harmless ones with the content."""
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            plain = {} if name == "sys_info" else 0
            data = pickle.dumps(plain if name in harmless else content, protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_zip_with_pickle_in_version(content: Any, path: Path) -> None:
    """A plain checkpoint whose every other record is a harmful pickle too."""
    torch.save({"model": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, pickle.dumps(content) if name.endswith("data.pkl") else data)


FORMATS: dict[str, Callable[[Any, Path], None]] = {
    "zip": torch.save,
    "legacy": write_legacy,
    "pickle": write_pickle,
    "tar": write_tar,
    "tar_storages": partial(write_tar, harmless=()),
    "zip_by_hand": write_zip_with_pickle_in_version,
}


def as_mmengine(harm: Harm) -> dict[str, Any]:
    """Hidden deep in a checkpoint of mmengine."""
    return {
        "meta": {"epoch": 1, "iter": 1, "hook_msgs": {"last": harm}},
        "state_dict": {"layer.weight": torch.zeros(1, 1), "layer.bias": torch.zeros(1)},
        "message_hub": {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}},
        "param_schedulers": [],
    }


def write_torchscript(path: Path) -> None:
    """An archive of torch.jit, whose code would run at the first call, and whose pickles at loading."""

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    torch.jit.script(Twice()).save(str(path))
