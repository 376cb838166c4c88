"""A backbone's checkpoint that is missing, or was trained on other inputs, is refused."""

import pytest
import timm
from mmengine.config import Config

from mst_transfer.checkpoint import BackboneMetadata, save_backbone
from mst_transfer.preflight.check import check_backbone

IMAGENET_MEAN = [123.675, 116.28, 103.53]
IMAGENET_STD = [58.395, 57.12, 57.375]


def backbone_config(path, mean=IMAGENET_MEAN):
    backbone = dict(type="mst_transfer.TimmViT", arch="vit_tiny_patch16_224", checkpoint=path and str(path))
    return Config(dict(model=dict(backbone=backbone, data_preprocessor=dict(mean=mean, std=IMAGENET_STD))))


def test_missing_backbone_says_what_to_type(tmp_path):
    check_backbone(backbone_config(None))
    with pytest.raises(FileNotFoundError, match="--cfg-options model.backbone.checkpoint=PATH, or .*=None"):
        check_backbone(backbone_config(tmp_path / "absent.safetensors"))


def test_other_normalisation_is_refused(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, embed_dim=24, depth=1, num_heads=3)
    metadata = BackboneMetadata(
        arch="vit_tiny_patch16_224",
        arch_kwargs=dict(embed_dim=24, depth=1, num_heads=3),
        patch_size=16,
        img_size=(224, 224),
        embed_dim=24,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        role="teacher",
    )
    path = tmp_path / "teacher.safetensors"
    save_backbone(path, vit.state_dict(), metadata)
    check_backbone(backbone_config(path))
    with pytest.raises(ValueError, match=r"data_preprocessor.mean=\[0, 0, 0\].*\[123.675, 116.28, 103.53\]"):
        check_backbone(backbone_config(path, mean=[0, 0, 0]))
