"""Parameters and multiply-adds against counts worked out by hand, and against those that the literature prints."""

from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config

from mst_transfer.cli.main import main
from mst_transfer.engine.plan import complexity

SWIN = {
    # Swin-Transformer's and MoBY's tables: parameters in millions, multiply-adds in thousand millions.
    "det_configs/mst_maskrcnn_swin_tiny_coco.py": (None, 48, 267),
    "det_configs/mst_cascade_maskrcnn_swin_tiny_coco_3x.py": (None, 86, 745),
    "seg_configs/mst_upernet_swin_tiny_ade20k.py": ((512, 2048), 60, 945),
}


def vit_macs(side: int, patch: int, width: int, depth: int) -> int:
    """Multiply-adds of a ViT with one class token, from its definition."""
    patches = (side // patch) ** 2
    tokens = patches + 1
    weights = 3 * width * width + width * width + 2 * 4 * width * width  # qkv, projection, MLP
    attention = 2 * tokens * tokens * width  # scores, and the weighted sum of values
    return patches * 3 * patch * patch * width + depth * (tokens * weights + attention)


def swin_macs(side: int, width: int, depths: tuple[int, ...], window: int) -> int:
    """Multiply-adds of a Swin whose maps are whole multiples of the window; (1) and (2) of the paper with the MLP."""
    cells, total = (side // 4) ** 2, (side // 4) ** 2 * 3 * 16 * width
    for stage, depth in enumerate(depths):
        if stage:
            cells //= 4
            total += cells * 4 * width * 2 * width
            width *= 2
        total += depth * (12 * cells * width**2 + 2 * window**2 * cells * width)
    return total


@pytest.mark.parametrize(
    ("name", "side", "options", "expected"),
    [
        ("vit_tiny_patch16_224", 224, dict(embed_dim=384, depth=3, num_heads=6), vit_macs(224, 16, 384, 3)),
        ("vit_tiny_patch16_224", 512, dict(embed_dim=192, depth=3, num_heads=3), vit_macs(512, 16, 192, 3)),
        ("swin_tiny_patch4_window7_224", 224, {}, swin_macs(224, 96, (2, 2, 6, 2), 7)),
    ],
)
def test_attention_and_windows_are_counted_as_worked_out_by_hand(name: str, side: int, options: dict, expected: int):
    with torch.device("meta"):
        model = timm.create_model(name, img_size=side, num_classes=0, **options).eval()
        image = torch.empty(1, 3, side, side)
    with torch.no_grad():
        assert complexity.count_macs(model, image)[1] == expected


def test_vitdets_windows_are_counted_as_worked_out_by_hand(root: Path):
    cfg = Config.fromfile(root / "det_configs" / "mst_vitdet_base_coco_100e.py")
    side, width, window = 896, 768, 14  # 56 x 56 tokens: whole windows
    tokens = (side // 16) ** 2
    attended = 8 * window**2 + 4 * tokens  # by a token, over the 12 blocks
    expected = tokens * 3 * 256 * width + 12 * tokens * 12 * width**2 + 2 * tokens * attended * width
    assert complexity.measure(cfg, (side, side)).macs["backbone"] == expected


def test_a_segmentor_is_counted_as_worked_out_by_hand(root: Path):
    cfg = Config.fromfile(root / "seg_configs" / "mst_linear_vit_small_ade20k.py")
    found = complexity.measure(cfg)
    assert found.shape == (512, 512)
    assert found.macs == {"backbone": vit_macs(512, 16, 384, 12), "decode_head": 32 * 32 * 384 * 150}


def test_a_detectors_second_stage_is_counted_at_a_fixed_number_of_regions(root: Path):
    cfg = Config.fromfile(root / "det_configs" / "mst_maskrcnn_coco.py")
    macs = complexity.measure(cfg, (224, 320)).macs
    assert macs["bbox_head"] == 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320))
    convolutions = 4 * 14 * 14 * 9 * 256 * 256 + 28 * 28 * 256 * 256 + 28 * 28 * 256 * 80
    assert macs["mask_head"] == 100 * convolutions
    cells = sum((224 // s) * (320 // s) for s in (4, 8, 16, 32)) + 4 * 5
    assert macs["rpn_head"] == cells * 256 * (9 * 256 + 3 + 12)
    assert complexity.default_shape(cfg) == (800, 1280)
    cfg.model.data_preprocessor.pad_size_divisor = 1024
    assert complexity.default_shape(cfg) == (1024, 1024)


@pytest.mark.parametrize("name", SWIN)
def test_counts_are_those_of_the_literature(name: str, root: Path):
    shape, millions, macs = SWIN[name]
    found = complexity.measure(Config.fromfile(root / name), shape)
    assert found.parameters / 1e6 == pytest.approx(millions, abs=0.6)
    assert sum(found.macs.values()) / 1e9 == pytest.approx(macs, rel=0.01)


def test_the_command_prints_one_line_a_config(capsys: pytest.CaptureFixture, root: Path, monkeypatch):
    monkeypatch.chdir(root)
    names = ["seg_configs/mst_linear_vit_small_ade20k.py", "seg_configs/mst_setr_pup_sample.py"]
    assert main(["complexity", *names]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1].split()[:2] == ["mst_linear_vit_small_ade20k.py", "512×512"]
    assert lines[1].split()[-1] == "31.8"
    assert main(["complexity", "--shape", "64", "96", names[0]]) == 0
    assert "64×96" in capsys.readouterr().out


def test_other_models_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="must be positive"):
        complexity.measure(Config(), (0, 5))
    cfg = Config(dict(default_scope="mmengine", model=dict(type="A")))
    with pytest.raises(ValueError, match="default_scope='mmengine'"):
        complexity.measure(cfg)
    cfg = Config(dict(default_scope="mmseg", model=dict(type="Missing", data_preprocessor=dict(size=8))))
    with pytest.raises(ValueError, match="cannot be built"):
        complexity.measure(cfg)
