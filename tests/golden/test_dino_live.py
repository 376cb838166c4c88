"""DINO's own code beside ours, on full-size networks: needs a checkout of it, which MST_DINO_CHECKOUT names."""

import os
from pathlib import Path

import pytest
import torch
from dino_reference import dino_code
from golden_files import agree

from mst_transfer.checkpoint import load_backbone
from mst_transfer.models.backbones.vit import TimmViT
from mst_transfer.probes.attention import attention_maps
from pretrain.backbones.vit import MaskedViT

CHECKOUT = os.environ.get("MST_DINO_CHECKOUT")

pytestmark = pytest.mark.skipif(
    CHECKOUT is None, reason="MST_DINO_CHECKOUT names no checkout of https://github.com/facebookresearch/dino"
)


@pytest.fixture(scope="module")
def vit_small(tmp_path_factory):
    """DINO's ViT-S/16, randomly initialised as DINO does, and a file laid out as its ``checkpoint.pth``."""
    assert CHECKOUT is not None
    with dino_code(Path(CHECKOUT)) as dino:
        torch.manual_seed(0)
        net = dino.vision_transformer.vit_small(patch_size=16).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name in ("pos_embed", "cls_token"):
            parameter.mul_(25)  # as large as in a trained network: 0.02 would hide how it is resampled
    path = tmp_path_factory.mktemp("dino") / "checkpoint.pth"
    content = {"teacher": {f"backbone.{k}": v for k, v in net.state_dict().items()}}
    torch.save(content | {"dino_loss": {"center": torch.zeros(1, 8)}}, path)
    return net, path


@pytest.mark.parametrize("size", [(224, 224), (96, 96), (480, 320)], ids=str)
def test_vit_small(vit_small, size):
    net, path = vit_small
    ours = MaskedViT("vit_small_patch16_224", pos_embed_interpolation="dino", with_mask_token=False).eval()
    load_backbone(ours.vit, path)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        agree(f"ViT-S/16, class token at {size}", ours(images).cls_token, net(images), 1e-5)
        attention = net.get_last_selfattention(images)[:, :, 0, 1:]
        agree(f"ViT-S/16, attention at {size}", attention_maps(ours.vit, images).flatten(2), attention, 1e-5)


def test_transfer_backbone(vit_small):
    """The whole way of a DINO file into a detector's or segmentor's backbone, at another size than 224."""
    net, path = vit_small
    adapter = TimmViT("vit_small_patch16_224", checkpoint=str(path), out_indices=(8, 11)).eval()
    adapter.init_weights()
    images = torch.randn(1, 3, 320, 480, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tokens = net.get_intermediate_layers(images, 4)
        for ours, theirs in zip(adapter(images), (tokens[0], tokens[-1]), strict=True):
            agree("ViT-S/16 as a backbone, tokens at 320 x 480", ours.flatten(2).transpose(1, 2), theirs[:, 1:], 1e-5)
