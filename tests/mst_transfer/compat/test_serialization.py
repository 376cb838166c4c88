"""Checkpoints of a real Runner resume; a malicious one is refused; files appear whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, save_checkpoint
from torch import nn
from torch.utils.data import Dataset

from mst_transfer.compat import serialization


class Numbers(Dataset):
    """Eight numbers."""

    metainfo = dict(classes=("a", "b"), palette=[(1, 2, 3), (4, 5, 6)])

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return dict(x=torch.tensor([index / 8.0]))


class Line(BaseModel):
    """y = w · x + b, to be 2 · x."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, mode: str = "tensor") -> dict | list:
        error = (self.layer(x) - 2 * x).square().mean()
        return dict(loss=error) if mode == "loss" else [error.item()]


class Error(BaseMetric):
    """The mean error."""

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict:
        return dict(error=sum(results) / len(results))


class Interrupt(Hook):
    """Ends the process, as it were, after two epochs."""

    priority = "LOWEST"  # after the checkpoint was written

    def after_train_epoch(self, runner: Runner) -> None:
        if runner.epoch == 1:
            raise KeyboardInterrupt


def make_runner(work_dir: Path, hooks: list, resume: bool = False) -> Runner:
    loader = dict(
        dataset=Numbers(),
        batch_size=4,
        num_workers=0,
        sampler=dict(type=DefaultSampler, shuffle=False),
        collate_fn=dict(type="default_collate"),
    )
    torch.manual_seed(0)
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(loader),
        val_dataloader=dict(loader),
        train_cfg=dict(by_epoch=True, max_epochs=4),
        val_cfg=dict(),
        val_evaluator=[Error()],
        optim_wrapper=dict(
            optimizer=dict(type="AdamW", lr=0.1, weight_decay=0.1),
            paramwise_cfg=dict(bias_decay_mult=0.0),
            clip_grad=dict(max_norm=1),
        ),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=2),
            dict(type="MultiStepLR", milestones=[3], gamma=0.1),
            dict(type="CosineAnnealingLR", T_max=4, convert_to_iter_based=True),
        ],
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", interval=1, save_best="error", rule="less"),
            logger=dict(type="LoggerHook", interval=1),
        ),
        custom_hooks=[dict(type="EMAHook"), *hooks],
        randomness=dict(seed=0),
        resume=resume,
        experiment_name=f"{work_dir.name}_{resume}",
    )


def test_a_runner_resumes_its_own_checkpoint(tmp_path: Path) -> None:
    whole = make_runner(tmp_path / "whole", [])
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path / "parts", [Interrupt()]).train()
    resumed = make_runner(tmp_path / "parts", [], resume=True)
    resumed.train()
    assert resumed.iter == whole.iter == 8
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    history = resumed.message_hub.get_scalar("train/loss").data[0]
    assert len(history) == 8


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


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_a_malicious_checkpoint_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trace, path = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save(dict(state_dict={}, meta=Malicious(trace)), path)
    with pytest.raises(Exception, match="(?i)weights.only|can run any code"):
        CheckpointLoader.load_checkpoint(str(path))
    assert not trace.exists()


def test_the_forks_second_unsafe_attempt_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.runner import checkpoint

    monkeypatch.setattr(checkpoint, "_safe_torch_load", None, raising=False)
    serialization.install()
    torch.save(dict(meta=Malicious(tmp_path / "executed")), tmp_path / "evil.pth")
    with pytest.raises(Exception, match="(?i)weights.only"):
        checkpoint._safe_torch_load(str(tmp_path / "evil.pth"), map_location="cpu")
    assert not (tmp_path / "executed").exists()


def test_getattr_stands_open_for_log_histories_alone(tmp_path: Path) -> None:
    from mmengine.logging import HistoryBuffer

    class Reach:
        def __reduce__(self) -> tuple:
            return (getattr, (HistoryBuffer, "__init__"))

    torch.save(dict(meta=Reach()), tmp_path / "evil.pth")
    with pytest.raises(Exception, match="refuses getattr|can run any code"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "evil.pth"))


def test_checkpoints_from_the_web_are_loaded_safely_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, path = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save(dict(meta=Malicious(trace)), path)
    monkeypatch.setattr(
        torch.hub,
        "download_url_to_file",
        lambda url, dst, *args, **kw: Path(dst).write_bytes(path.read_bytes()),
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(Exception, match="(?i)weights.only|can run any code"):
        CheckpointLoader.load_checkpoint("https://example.org/evil.pth")
    assert not trace.exists()


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
    assert {file.name for file in tmp_path.iterdir()} == {"epoch_1.pth", "checkpoints.sha256"}


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    serialization.write_atomically(tmp_path / "a" / "atomic", lambda path: Path(path).write_text("x"))
    assert (tmp_path / "a" / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
