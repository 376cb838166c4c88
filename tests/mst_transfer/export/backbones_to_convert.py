"""Random backbones of every kind that can be converted, small enough for every test."""

import timm
import torch
from small_vit import SMALL
from torch import nn

from mst_transfer.export.source_model import read_source_model

SCALED = SMALL | {"init_values": 1e-5}
KINDS = {
    "vit": ("vit_tiny_patch16_224", SMALL),
    "layer_scale": ("vit_tiny_patch16_224", SCALED),
    "registers": ("vit_tiny_patch16_224", SCALED | {"reg_tokens": 4, "no_embed_class": True}),
    "swiglu": ("vit_giant_patch14_dinov2", SCALED),
    "swin": (  # whose last stage is one window at the checkpoint's own size, as in the published models
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4},
    ),
    "beit": ("beit_base_patch16_224", SMALL | {"use_fc_norm": False}),
    "fc_norm": ("vit_tiny_patch16_224", SMALL | {"global_pool": "avg"}),
    "beit_fc_norm": ("beit_base_patch16_224", SMALL),
    "distilled": ("deit_tiny_distilled_patch16_224", SMALL),
    "dinov3": ("vit_small_patch16_dinov3", SMALL | {"embed_dim": 48}),
}


def make_model(kind):
    arch, options = KINDS[kind]
    model = timm.create_model(arch, num_classes=0, **options).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        nn.init.normal_(parameter, mean=one, std=0.3, generator=generator)
    return model


def make_original(kind, folder):
    arch, options = KINDS[kind]
    torch.save(make_model(kind).state_dict(), folder / f"{kind}.pth")
    return read_source_model(folder / f"{kind}.pth", arch=arch, arch_kwargs=options)
