"""A training of the tiny segmentor."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


@pytest.fixture
def train(tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs ``mst train`` on the tiny config into a folder of ``tmp_path``, and returns what it says on stderr."""
    from mst_transfer.cli.main import main

    def run(*words: str, options: Sequence[str] = (), into: str = "run", status: int = 0) -> str:
        command = ["train", str(tiny_seg_config), "--work-dir", str(tmp_path / into), *words]
        capsys.readouterr()
        found = main([*command, *(["--cfg-options", *options] if options else [])])
        said = capsys.readouterr().err
        assert found == status, said
        return said

    return run
