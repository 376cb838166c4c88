"""Training and testing from a config: what is refused before the start, what is written after the end."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mst_transfer.card.pretraining import read_scalars
from mst_transfer.cli.main import main
from mst_transfer.engine import results, run
from mst_transfer.engine.fit import devices

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


def read(work_dir: Path) -> dict:
    return json.loads((work_dir / "results.json").read_text())


def test_train_resume_and_test(tiny_seg_config: Path, tmp_path: Path, train, capsys) -> None:
    work_dir = tmp_path / "run"
    train("--seed", "3", options=["train_cfg.max_epochs=1"])
    first = read(work_dir)
    assert first["task"] == "seg" and first["mode"] == "train" and first["seed"] == 3
    assert first["resumed"] is False and first["world_size"] == 1
    assert first["checkpoint"] == "random" and first["minutes"] > 0 and 0 <= first["metrics"]["mIoU"] <= 100
    assert (
        {"mmengine", "onedl-mmengine"} & first["versions"].keys()
        and first["hardware"]
        and first["config"].endswith("tiny_seg.py")
    )
    assert set(first["metrics"]) == {"aAcc", "mIoU", "mAcc"}

    train("--seed", "3", "--resume")
    assert read(work_dir)["resumed"] is True
    # The axis of the training curve, in TensorBoard too, is steps
    iterations = torch.load(work_dir / "epoch_2.pth", weights_only=True)["meta"]["iter"]
    assert sorted({row["step"] for row in read_scalars(work_dir) if "mIoU" in row}) == [iterations // 2, iterations]
    assert "resumed epoch: 1" in sorted(work_dir.glob("*/*.log"))[-1].read_text()

    assert main(["test", str(tiny_seg_config), str(work_dir / "epoch_2.pth"), "--work-dir", str(tmp_path / "t")]) == 0
    tested = read(tmp_path / "t")
    assert tested["resumed"] is False
    assert tested["mode"] == "test" and tested["metrics"]["mIoU"] == pytest.approx(read(work_dir)["metrics"]["mIoU"])
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cfg-options", "optm.lr=1"], "did you mean 'optim_wrapper'"),
        (["--amp", "--check-only", "--cfg-options", "optim_wrapper.type=Other"], "no known AMP counterpart"),
        pytest.param(["--cfg-options", "optim_wrapper.type=AmpOptimWrapper"], "needs a GPU", marks=without_gpu),
        (["--auto-scale-lr"], "no auto_scale_lr.base_batch_size"),
        (["--resume", "missing.pth"], "checkpoint missing.pth does not exist"),
        (["--cfg-options", "train_dataloader.dataset.data_root=nowhere"], "nowhere"),
        (["--launcher", "slurm"], "needs SLURM_PROCID"),
    ],
)
def test_mistakes_are_refused_before_the_start(words, message: str, tmp_path: Path, train, monkeypatch) -> None:
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    error = train(*words, status=1)
    assert error.startswith("mst train: ") and message in error
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_or_order_of_classes_is_refused(tiny_seg_config, tmp_path, train, capsys) -> None:
    """Figures would be of mixed-up names; other spellings are only warned of."""
    train(options=["train_cfg.max_epochs=1"])
    words = [str(tiny_seg_config), str(tmp_path / "run" / "epoch_1.pth"), "--work-dir", str(tmp_path / "t")]
    assert main(["test", *words, "--cfg-options", "model.decode_head.num_convs=2"]) == 1
    said = capsys.readouterr().err
    assert "mst test: checkpoint" in said and "does not fit the model of" in said and "decode_head.convs.1" in said
    assert main(["test", words[0], words[1].replace("epoch_1", "epoch_9")]) == 1
    assert "that folder has epoch_1.pth" in capsys.readouterr().err
    trained = Config.fromfile(tiny_seg_config).train_dataloader.dataset.metainfo.classes
    option = "test_dataloader.dataset.metainfo.classes="
    assert main(["test", *words, "--cfg-options", option + json.dumps([*trained][::-1]).replace(" ", "")]) == 1
    assert f"{trained[1]!r} is class 0 here and was 1 there" in capsys.readouterr().err
    assert main(["test", *words, "--cfg-options", option + json.dumps([trained[0], "other"]).replace(" ", "")]) == 0
    logs = [path.read_text() for path in (tmp_path / "t").glob("*/*.log")]  # of the refused tests too
    assert any("but the test set has" in log for log in logs)


def test_sync_bn_becomes_bn_where_it_cannot_work() -> None:
    def config() -> Config:
        return Config(dict(model=dict(a=dict(type="SyncBN"), b=[dict(c=dict(type="SyncBN"), d=dict(type="LN"))])))

    for world_size, on_cuda, expected in ((1, True, "BN"), (2, False, devices.GLOO_SYNC_BN), (2, True, "SyncBN")):
        cfg = config()
        notices = devices.adapt_to_devices(cfg, world_size, on_cuda)
        assert [cfg.model.a.type, cfg.model.b[0].c.type, cfg.model.b[0].d.type] == [expected, expected, "LN"]
        assert bool(notices) == (expected != "SyncBN")
        devices.adapt_to_devices(cfg, world_size, on_cuda)  # of a config that such a run has dumped
        assert len(cfg.get("custom_hooks") or ()) == (world_size > 1)


def test_mixed_precision_takes_what_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = Config(dict(model=dict(), optim_wrapper=dict(type="OptimWrapper")))
    devices.enable_amp(cfg)
    assert dict(cfg.optim_wrapper) == dict(type="OptimWrapper", cpu_dtype="auto")
    devices.check_amp(cfg, on_cuda=False)
    cfg = Config(dict(model=dict(), optim_wrapper=dict(type="AmpOptimWrapper")))
    devices.enable_amp(cfg)
    devices.check_amp(cfg, on_cuda=True)
    devices.adapt_to_devices(cfg, 1, on_cuda=False)  # a test of what was trained so runs anywhere
    with pytest.raises(ValueError, match="needs a GPU"):
        devices.check_amp(cfg, on_cuda=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    for capability, dtype in (((7, 5), None), ((8, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, value=capability: value)
        devices.enable_amp(cfg)
        assert cfg.optim_wrapper.get("dtype") == dtype and cfg.optim_wrapper.loss_scale == "dynamic"


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (dict(checkpoint="a.safetensors"), "a.safetensors"),
        (dict(checkpoint=None), "random"),
        (dict(init_cfg=dict(type="Pretrained", checkpoint="b.pth")), "b.pth"),
        (dict(init_cfg=[dict(type="Kaiming"), dict(type="Pretrained", checkpoint="c.pth")]), "c.pth"),
        (dict(), "random"),
    ],
)
def test_the_backbones_origin_is_reported(backbone: dict, expected: str) -> None:
    assert results.backbone_checkpoint(Config(dict(model=dict(backbone=backbone)))) == expected


def test_a_resumed_run_needs_no_backbone_file_but_remembers_it(tiny_seg_config: Path, tmp_path: Path) -> None:
    with tiny_seg_config.open("a") as file:
        file.write("model['backbone'].update(type='mst_transfer.TimmViT', checkpoint='gone.pth')\n")
    torch.save({}, tmp_path / "epoch_1.pth")
    arguments = dict(work_dir=str(tmp_path), resume=str(tmp_path / "epoch_1.pth"))
    cfg = run.load_run_config(str(tiny_seg_config), **arguments)
    assert cfg.model.backbone.checkpoint is None and results.backbone_checkpoint(cfg) == "gone.pth"
    cfg.dump(str(tmp_path / "dumped.py"))
    again = run.load_run_config(str(tmp_path / "dumped.py"), **arguments)
    assert results.backbone_checkpoint(again) == "gone.pth"
    again.resume = False
    assert results.backbone_checkpoint(again) == "random"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/x/bin/mst", "train", "a b.py"], "mst train 'a b.py'"),
        (["tools/train.py", "c.py"], "python tools/train.py c.py"),
        (
            ["/y/tools/test.py", "c.py", "e.pth", "--seed", "1", "--launcher", "pytorch"],
            "bash tools/dist_test.sh c.py e.pth 2 --seed 1",
        ),
    ],
)
def test_the_recorded_command_can_be_typed_again(argv: list[str], expected: str, monkeypatch) -> None:
    monkeypatch.setenv("MST_DATA_ROOT", "my data")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("sys.argv", argv)
    assert results.command(2) == f"MST_DATA_ROOT='my data' {expected}"
