"""A ViT small enough for every test of checkpoints, and metadata that fit it."""

import timm

from mst_transfer.checkpoint import BackboneMetadata

SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)


def make_vit(**changes):
    options = SMALL | dict(num_classes=0) | changes
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, **options)


def make_metadata(**changes):
    values = dict(
        arch="vit_tiny_patch16_224",
        arch_kwargs=dict(SMALL),
        patch_size=8,
        img_size=(32, 32),
        embed_dim=24,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        role="teacher",
        provenance={"config": "some_config", "epoch": 3},
    )
    return BackboneMetadata(**(values | changes))
