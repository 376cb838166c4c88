"""Runs programs that simulate a device, each in a process of its own: what they change in torch cannot be undone."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = 77  # exit status: torch lacks a private interface, the last line of stderr says which


def run(*words: str) -> str:
    """What a program prints; the test is skipped, with the reason, if torch lacks what the simulation needs."""
    import pytest

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def require(*paths: str) -> None:
    """Ends a program, with the status that has its test skipped, if torch does not have all of these names."""
    import torch

    for path in paths:
        found = torch
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is None:
            print(f"torch {torch.__version__} has no torch.{path}", file=sys.stderr)
            sys.exit(SKIPPED)
