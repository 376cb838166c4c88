"""Says whether ``torch.compile`` can generate code for a GPU here: it takes Triton, and a C compiler for stubs."""

import functools
import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch


def can_compile(device: torch.device) -> bool:
    """Whether compiled code pays on a device: on CUDA, where all is there that compiling takes."""
    return device.type == "cuda" and not missing_for_compiler()


@functools.cache
def missing_for_compiler() -> str:
    """What keeps code from being generated for the GPU; empty if nothing does."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if not torch.cuda.is_available():
        return "there is no GPU"
    if torch.cuda.get_device_capability() < (7, 0):
        return "the GPU is older than compute capability 7.0"
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    if compiler is None:
        return "there is no C compiler"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return "" if headers.is_file() else f"there is no {headers}"
