"""What pre-training writes is what the heads' configs expect by default."""

from pathlib import Path

import pytest
from mmengine.config import Config

import mst_transfer  # noqa: F401  (registers mst_transfer:: bases)

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ("arch", "img_size", "patch_size", "embed_dim", "depth", "num_heads")
PAIRS = [
    ("mst_vit_sample", "det_configs/mst_maskrcnn_sample.py"),
    ("mst_vit_sample", "seg_configs/mst_setr_pup_sample.py"),
    ("mst_vit_photos", "det_configs/mst_maskrcnn_coco_mini.py"),
    ("mst_vit_photos", "seg_configs/mst_setr_pup_camvid.py"),
    ("mst_vit_small_16_imagenet_100e", "det_configs/mst_maskrcnn_coco.py"),
    ("mst_vit_small_16_imagenet_100e", "seg_configs/mst_setr_pup_cityscapes.py"),
]


@pytest.mark.parametrize(("pretrain", "transfer"), PAIRS)
def test_backbones_agree(pretrain: str, transfer: str):
    source = Config.fromfile(ROOT / "pretrain" / "configs" / f"{pretrain}.py").model.backbone
    target = Config.fromfile(ROOT / transfer).model.backbone
    fields = [field for field in FIELDS if field in source and not ("imagenet" in pretrain and field == "img_size")]
    assert {field: source[field] for field in fields} == {field: target.get(field) for field in fields}
    assert target.checkpoint == f"work_dirs/{pretrain}/teacher.safetensors"
