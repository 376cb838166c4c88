"""A run goes on with another number of processes, the global batch being equal."""

from pathlib import Path

import pytest
import tiny_tasks
import torch
from compare_runs import logged, read
from programs import start_script

pytestmark = pytest.mark.faults

SGD = """
optim_wrapper["optimizer"] = dict(type="SGD", lr=0.01)
"""
PRETRAIN_SGD = """
optim_wrapper = dict(dtype=None, optimizer=dict(_delete_=True, type="SGD", lr=0.01))
"""
SAME = ["model.backbone.drop_path_rate=0"]
OPTIONS = {  # what depends on the process is left out: stochastic depth, dropout, BatchNorm on CPU processes
    "pretrain": [*SAME, "train_cfg.accumulation_steps=1", "train_cfg.max_epochs=2"],
    "seg": [*SAME, "model.decode_head.dropout_ratio=0", "model.decode_head.norm_cfg=None", "train_cfg.max_iters=12"],
}
SCRIPTS = {"pretrain": "pretrain.sh", "seg": "dist_train.sh"}


@pytest.mark.parametrize("task", SCRIPTS)
def test_two_processes_go_on_as_one(task: str, tmp_path: Path) -> None:
    """From a checkpoint of two processes: one with twice the batch, against two to the end; in the other order too."""
    config = tiny_tasks.write_config(task, tmp_path)
    config.write_text(config.read_text() + (PRETRAIN_SGD if task == "pretrain" else SGD))

    def run(name: str, processes: int, resume: str | None = None) -> Path:
        out = tmp_path / name
        options = [*OPTIONS[task], f"train_dataloader.batch_size={4 // processes}"]
        options += ["default_hooks.checkpoint.interval=6", "default_hooks.checkpoint.max_keep_ckpts=-1"]
        words = tiny_tasks.command(task, config, out, options, resume=False)
        words = [words[0], str(processes), *(["--resume", resume] if resume else []), *words[1:]]
        log = tmp_path / f"{name}.log"
        assert start_script(SCRIPTS[task], words, log).wait(timeout=400) == 0, log.read_text()[-3000:]
        return out

    expected = run("two", 2)
    parts = {"then_one": run("then_one", 1, str(expected / "iter_6.pth"))}
    parts["then_two"] = run("then_two", 2, str(run("one", 1) / "iter_6.pth"))
    theirs = read(expected / "iter_12.pth")["state_dict"]
    start = read(expected / "iter_6.pth")["state_dict"]
    for name, out in parts.items():
        ours = read(out / "iter_12.pth")["state_dict"]
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            torch.testing.assert_close(ours[key], tensor, rtol=1e-4, atol=5e-6, msg=f"{name} {key}")
        rows, all_rows = logged(out), logged(expected)
        assert {step for step in rows if step.startswith("train")} == {f"train {step}" for step in range(7, 13)}
        for step in range(7, 13) if task == "pretrain" else ():  # mmengine logs the main process's own loss
            loss = all_rows[f"train {step}"][0]["loss"]
            assert rows[f"train {step}"][0]["loss"] == pytest.approx(loss, rel=1e-4)
    assert any(not torch.equal(theirs[key], start[key]) for key in theirs)
