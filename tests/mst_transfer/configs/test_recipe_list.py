"""``mst recipes`` says of every config what mmengine reads from it."""

import subprocess
import sys
from pathlib import Path

import pytest
import recipes as shipped

from mst_transfer.cli.main import main
from mst_transfer.configs.recipes import find_recipes, read_recipe
from mst_transfer.configs.saved import ConfigRefusedError


@pytest.mark.parametrize("name", shipped.LEAVES)
def test_facts_are_those_that_mmengine_reads(name: str) -> None:
    cfg, found = shipped.read(name), read_recipe(name)
    length, unit = found["schedule"].replace(",", "").split()
    used, other = ("max_epochs", "max_iters") if unit == "epochs" else ("max_iters", "max_epochs")
    assert cfg.train_cfg[used] == int(length) and not cfg.train_cfg.get(other)
    assert found["checkpoint"] == (f"epoch_{length}.pth" if unit == "epochs" else f"iter_{length}.pth")
    optimizer, decay = (
        cfg.optim_wrapper.optimizer,
        cfg.optim_wrapper.get("paramwise_cfg", {}).get("layer_decay_rate", 1),
    )
    rate = f"{optimizer.type} {optimizer.lr:g}" + (f", x {decay} a layer" if decay < 1 else "")
    assert (found["batch"], found["rate"]) == (str(cfg.auto_scale_lr.base_batch_size), rate)
    backbone = cfg.model.backbone
    frozen = ", frozen" if backbone.get("frozen_stages") == "all" else ""
    assert (found["backbone"], found["weights"]) == (backbone.arch + frozen, backbone.checkpoint or "random")
    assert {"ade20k": "ade"}.get(found["data"], found["data"]) in cfg.train_dataloader.dataset.data_root.split("/")
    assert found["task"] == ("detection" if cfg.default_scope == "mmdet" else "segmentation")
    assert found["about"] and (shipped.ROOT / name).read_text().startswith(found["about"])


def test_filters(capsys: pytest.CaptureFixture) -> None:
    def names(**filters) -> list[str]:
        return [one["recipe"] for one in find_recipes(**filters)]

    assert names() == shipped.LEAVES
    assert names(task="det") == [name for name in shipped.LEAVES if name.startswith("det")]
    assert names(data="ade20k") == [name for name in shipped.LEAVES if "ade20k" in name]
    dino = names(words=["LINEAR"], backbone="dinov3")
    assert [Path(name).stem for name in dino] == [
        f"mst_linear_dinov3_vit_small_{of}" for of in ("ade20k", "cityscapes")
    ]
    assert main(["recipes", "--task", "seg", "--backbone", "swin"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 + 2
    assert main(["recipes", "--backbone", "resnet"]) == 1
    assert "no recipe of" in (error := capsys.readouterr().err) and "swin_tiny_patch4_window7_224" in error


@pytest.mark.parametrize(
    "word", ["seg_configs/mst_linear_dinov2_vit_small_ade20k.py", "linear_dinov2_vit_small_ade20k"]
)
def test_one_is_explained_with_its_commands(word: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["recipes", word]) == 0
    said = capsys.readouterr().out
    for part in (
        "A linear layer on DINOv2's frozen ViT-S/14",
        "mst check seg_configs/mst_linear_dinov2_vit_small_ade20k.py",
        ".py work_dirs/mst_linear_dinov2_vit_small_ade20k/iter_40000.pth",
        "large: --cfg-options model.backbone.arch=vit_large_patch14_reg4_dinov2 "
        "model.backbone.checkpoint=timm://vit_large_patch14_reg4_dinov2.lvd142m",
    ):
        assert part in said


def test_nothing_heavy_is_imported(root: Path) -> None:
    code = "import sys; from mst_transfer.cli.main import main; assert main(['recipes', 'vitdet']) == 0\n"
    code += "assert not {'torch', 'mmdet', 'mmseg', 'mmcv', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)


def test_only_saved_configs_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_DATA_ONLY_CONFIGS", "1")
    with pytest.raises(ConfigRefusedError, match="is a program"):
        find_recipes()
