"""Malicious checkpoints are refused; files appear whole or not at all."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from malicious_files import harms
from mmengine.runner.checkpoint import CheckpointLoader, save_checkpoint

from mst_transfer.compat import serialization
from mst_transfer.compat.untrusted_files import RefusedFileError


@pytest.mark.parametrize("names", [("core", "_core"), ("_core", "core")])
def test_histories_written_by_either_numpy_load(tmp_path: Path, names: tuple[str, str]) -> None:
    from mmengine.logging import HistoryBuffer

    path = tmp_path / "x.pth"
    torch.save(dict(history=HistoryBuffer([0.5, 1.5], [1, 1])), path, _use_new_zipfile_serialization=False)
    old, new = (f"numpy.{name}.multiarray".encode() for name in names)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content or b"numpy.core.multiarray" in content
    if old in content:
        path.write_bytes(content.replace(b"c" + old, b"c" + new))
    assert CheckpointLoader.load_checkpoint(str(path))["history"].mean() == 1.0


def test_the_forks_second_unsafe_attempt_is_not_made(canary: Path, tmp_path: Path, monkeypatch) -> None:
    from mmengine.runner import checkpoint

    monkeypatch.setattr(checkpoint, "_safe_torch_load", None, raising=False)
    serialization.install()
    torch.save(dict(meta=harms(canary)["path"]), tmp_path / "evil.pth")
    with pytest.raises(RefusedFileError, match="can run any code"):
        checkpoint._safe_torch_load(str(tmp_path / "evil.pth"), map_location="cpu")


def test_getattr_stands_open_for_log_histories_alone(tmp_path: Path) -> None:
    from mmengine.logging import HistoryBuffer

    class Reach:
        def __reduce__(self) -> tuple:
            return (getattr, (HistoryBuffer, "__init__"))

    torch.save(dict(meta=Reach()), tmp_path / "evil.pth")
    with pytest.raises(Exception, match="refuses getattr|can run any code"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "evil.pth"))


def test_checkpoints_from_the_web_are_loaded_safely_too(canary: Path, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "evil.pth"
    torch.save(dict(meta=harms(canary)["path"]), path)
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda url, dst, *args, **kw: Path(dst).write_bytes(path.read_bytes())
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(Exception, match="(?i)weights.only|can run any code"):
        CheckpointLoader.load_checkpoint("https://example.org/evil.pth")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "epoch_1.pth"
    save_checkpoint(dict(a=1), str(path))
    before = path.read_bytes()

    def interrupted(content: object, file: Any) -> None:
        file.write(before[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(dict(a=2), str(path))
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"epoch_1.pth"}


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    serialization.write_atomically(tmp_path / "a" / "atomic", lambda path: Path(path).write_text("x"))
    assert (tmp_path / "a" / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_runner_that_was_imported_first_writes_straight_to_the_disk_too() -> None:
    code = (
        "import mmengine.runner.runner as runner\nimport mst_transfer\n"
        "assert runner.save_checkpoint.of_mmengine is not runner.save_checkpoint"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
