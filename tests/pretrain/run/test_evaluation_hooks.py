"""k-NN during training, its guard, and the collapse alarm, in whole runs."""

import json
import re
from pathlib import Path

import pytest
import torch

from mst_transfer.checkpoint import read_backbone
from pretrain.head import DINOHead
from pretrain.run.evaluation_hooks import CollapseAlarmHook, KNNHook
from pretrain.run.train import main


def with_hook(config: Path, hook: str) -> Path:
    config.write_text(config.read_text() + f"\ncustom_hooks = [{hook}]\n")
    return config


def scalars(work_dir: Path) -> list[dict]:
    lines = next(work_dir.glob("*/vis_data/scalars.json")).read_text().splitlines()
    return [json.loads(line) for line in lines]


def log(work_dir: Path) -> str:
    return next(work_dir.glob("*/*.log")).read_text()


def knn_hook(photo_folder: Path, **options) -> str:
    return repr({"type": "pretrain.KNNHook", "train_root": str(photo_folder), "val_root": str(photo_folder),
                 "interval": 1, "k": 3, **options})  # fmt: skip


def test_knn_is_measured_before_and_while_training(tiny_config: Path, photo_folder: Path, tmp_path: Path):
    config = with_hook(tiny_config, knn_hook(photo_folder))
    assert main([str(config), "--work-dir", str(tmp_path / "run")]) == 0
    text = log(tmp_path / "run")
    for epoch in (0, 1, 2):
        assert f"k-NN (k=3) after epoch {epoch}: top-1 " in text
    measured = [line for line in scalars(tmp_path / "run") if "val/knn_top1" in line]
    assert [line["step"] for line in measured] == [0, 6, 12]  # as all else that is logged: in steps
    assert all(0 <= line["val/knn_top1"] <= 100 for line in measured)


def test_measured_features_are_the_teachers(tiny_config: Path, photo_folder: Path, tmp_path: Path, runner_of):
    runner = runner_of(tiny_config)
    hook = KNNHook(str(photo_folder), str(photo_folder), k=1, before_training=False)
    hook.before_train(runner)
    assert hook.accuracy(runner.model) == 100  # each image is its own nearest
    with torch.no_grad():
        for parameter in runner.model.teacher.parameters():
            parameter.zero_()
    assert hook.accuracy(runner.model) == 50  # all features alike


def test_guard_warns_when_accuracy_falls(tiny_config: Path, photo_folder: Path, tmp_path: Path, monkeypatch):
    values = iter([80.0, 79.5, 70.0])
    monkeypatch.setattr(KNNHook, "accuracy", lambda self, mst: next(values))
    config = with_hook(tiny_config, knn_hook(photo_folder, max_drop=1.0))
    assert main([str(config), "--work-dir", str(tmp_path / "run")]) == 0
    said = log(tmp_path / "run")
    assert "fell to 70.00 % after epoch 2" in said and "80.00 % of epoch 0" in said and "base_lr" in said


def test_a_stopped_run_has_its_last_epoch_and_the_best(
    tiny_config: Path, photo_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    """Epoch 1 is the best of 5; epoch 4 is bad; two checkpoints are kept. Resumed, the run does not just go on."""
    values = iter([10.0, 80.0, 79.9, 79.8, 70.0, 79.0])
    monkeypatch.setattr(KNNHook, "accuracy", lambda self, mst: next(values))
    run = tmp_path / "run"
    options = ["train_cfg.max_epochs=5", "default_hooks.checkpoint.max_keep_ckpts=2"]
    options += ["default_hooks.checkpoint.by_epoch=True", "default_hooks.checkpoint.interval=1"]
    words = ["--work-dir", str(run), "--cfg-options", *options]
    config = with_hook(tiny_config, knn_hook(photo_folder, max_drop=1.0, action="stop"))
    assert main([str(config), *words]) == 1
    assert "80.00 % of epoch 1, whose teacher is knn_best_teacher.safetensors" in capsys.readouterr().err
    assert {path.name for path in run.glob("*.pth")} == {"epoch_3.pth", "epoch_4.pth"}
    assert {path.name[:7] for path in run.glob("epoch_*.safetensors")} == {"epoch_3", "epoch_4"}
    assert read_backbone(run / "knn_best_teacher.safetensors", "teacher")[1].provenance["epoch"] == 1
    assert main([str(config), "--resume", *words]) == 1
    assert "fell to 70.00 % after epoch 4" in capsys.readouterr().err
    assert main([str(config), "--resume", *words, "custom_hooks.0.action=warn"]) == 0
    assert (run / "epoch_5.pth").exists() and next(values, None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(train_root="nowhere"), "nowhere does not exist   (custom_hooks.0.train_root)"),
        (dict(k=25), "KNNHook.k=25"),
        (dict(size=30, before_training=False), "30x30 px"),
        (dict(val_root="part_0"), "differ"),
    ],
)
def test_wrong_options_stop_before_the_first_step(
    tiny_config: Path, photo_folder: Path, tmp_path: Path, capsys, options: dict, message: str
):
    if "val_root" in options:  # a class folder fewer
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "part_0").symlink_to(photo_folder / "part_0")
        options = dict(val_root=str(tmp_path / "one"))
    config = with_hook(tiny_config, knn_hook(photo_folder, **options))
    assert main([str(config), "--work-dir", str(tmp_path / "run")]) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.pth"))


ALARM = dict(type="pretrain.CollapseAlarmHook", interval=1, patience=2, num_views=16)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (dict(max_entropy=0.0), "output is uniform"),
        (dict(min_prototypes=33.0), "of 32 prototypes"),
        (dict(min_rank=25.0), "effective rank of"),
    ],
)
def test_each_fault_stops_the_run(tiny_config: Path, tmp_path: Path, capsys, limits: dict, message: str):
    healthy = dict(max_entropy=2.0, min_prototypes=0.0, min_rank=0.0)
    config = with_hook(tiny_config, repr({**ALARM, **healthy, **limits, "action": "stop"}))
    assert main([str(config), "--work-dir", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "collapse alarm at step 8, 2 looks in a row" in said and message in said  # warm-up: 6 steps


def test_a_stopped_run_can_be_gone_on_with(tiny_config: Path, tmp_path: Path, capsys):
    """The alarm goes off in mid-epoch, at no regular checkpoint."""
    run, alarm = tmp_path / "run", {**ALARM, "patience": 3, "min_rank": 25.0, "action": "stop"}
    words = [str(with_hook(tiny_config, repr(alarm))), "--work-dir", str(run)]
    assert main(words) == 1
    assert "at step 9, 3 looks in a row" in capsys.readouterr().err
    assert (run / "last_checkpoint").read_text().endswith("iter_9.pth")
    assert (run / "iter_9_teacher.safetensors").is_file()
    assert main([*words, "--resume", "--cfg-options", "custom_hooks.0.action=warn"]) == 0
    assert (run / "last_checkpoint").read_text().endswith("iter_12.pth")


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_a_step_whose_teacher_is_no_number_is_not_looked_at(tiny_config: Path, tmp_path: Path, monkeypatch, spoilt):
    """As float16 overflows: steps 8 and 9 of 12, of which the loop leaves the second out as well."""
    forward = DINOHead.forward

    def spoil(head: DINOHead, cls_token: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():  # the teacher's
            calls.append(len(calls))
            cls_token = cls_token * (spoilt if len(calls) in (8, 9) else 1)
        return forward(head, cls_token)

    calls: list[int] = []
    monkeypatch.setattr(DINOHead, "forward", spoil)
    config = with_hook(tiny_config, repr({**ALARM, "max_entropy": 2.0, "min_prototypes": 0.0, "min_rank": 0.0}))
    assert main([str(config), "--work-dir", str(tmp_path / "run")]) == 0
    last = [line for line in scalars(tmp_path / "run") if "loss" in line][-1]
    assert last["left_out_steps"] == 2 and 1 <= last["effective_rank"] <= 16 and 1 <= last["prototypes_in_use"] <= 32
    assert "collapse alarm" not in log(tmp_path / "run")


def test_a_collapsed_teacher_raises_the_alarm(tiny_config: Path, tmp_path: Path, monkeypatch, runner_of):
    """The alarm's own limits, on a network whose class tokens are all the same."""
    runner = runner_of(tiny_config)
    with torch.no_grad():
        for network in (runner.model.student, runner.model.teacher):
            for block in network.backbone.vit.blocks:  # the class token hears nothing of the patches
                block.attn.proj.weight.zero_()
                block.attn.proj.bias.zero_()
    hook = CollapseAlarmHook(interval=1, patience=1, num_views=8)
    runner.register_hook(hook)
    seen: list[str] = []
    monkeypatch.setattr("pretrain.run.evaluation_hooks._act", lambda runner, action, message: seen.append(message))
    runner.train()
    assert seen and re.search(r"all views fall on 1\.0\d of 32 prototypes", seen[0])
    assert re.search(r"effective rank of 1\.0\d", seen[0])


@pytest.mark.parametrize(
    ("hook", "options"),
    [(KNNHook, dict(action="shout")), (KNNHook, dict(max_drop=0)), (CollapseAlarmHook, dict(patience=0))],
)
def test_wrong_options_are_named(hook, options):
    (name, value), roots = *options.items(), ("a", "b") if hook is KNNHook else ()
    with pytest.raises(ValueError, match=f"{name} = {value!r}"):
        hook(*roots, **options)
