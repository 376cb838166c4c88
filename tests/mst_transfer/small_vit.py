"""A ViT small enough for every test of checkpoints, and metadata that fit it."""

import argparse

import timm
import torch

from mst_transfer.checkpoint import BackboneMetadata

SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)


def make_vit(**changes):
    options = SMALL | dict(num_classes=0) | changes
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, **options)


def make_metadata(**changes):
    values = dict(arch="vit_tiny_patch16_224", arch_kwargs=dict(SMALL), patch_size=8, img_size=(32, 32), embed_dim=24)
    values |= dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), role="teacher")
    values["provenance"] = {"config": "some_config", "epoch": 3}
    return BackboneMetadata(**values | changes)


def with_prefix(model, prefix):
    return {prefix + name: value for name, value in model.state_dict().items()}


def dino_full(teacher, student):
    """The layout of DINO's `checkpoint.pth`: two networks, optimizer, loss, and the arguments' Namespace."""
    head = {"head.last_layer.weight_g": torch.ones(8, 1)}
    optimizer = torch.optim.AdamW(student.parameters())
    return {
        "student": with_prefix(student, "module.backbone.") | {"module." + k: v for k, v in head.items()},
        "teacher": with_prefix(teacher, "backbone.") | head,
        "optimizer": optimizer.state_dict(),
        "epoch": 7,
        "args": argparse.Namespace(arch="vit_small", patch_size=8),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
