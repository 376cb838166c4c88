"""Loading into the adapters: the architecture from the file, what may be missing, every class, windows, channels."""

import logging

import pytest
import timm
import torch

from mst_transfer.checkpoint import BackboneMetadata, BackboneNotCoveredError, save_backbone
from mst_transfer.models.backbones.vit import TimmViT

SIZE = dict(img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=3)
NORM = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def save_own(path, arch, **kwargs):
    """A file of ours, and the model in it."""
    kwargs = SIZE | kwargs
    vit = timm.create_model(arch, num_classes=0, **kwargs)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(std=0.1)
    metadata = BackboneMetadata(arch, kwargs, 8, (32, 32), 48, role="teacher", **NORM)
    save_backbone(path, vit.state_dict(), metadata)
    return vit


@pytest.mark.parametrize("window", [dict(), dict(window_size=2)])
@pytest.mark.parametrize(
    ("arch", "kwargs"),
    [
        ("vit_tiny_patch16_224", dict(drop_path_rate=0.2)),
        ("vit_small_patch14_reg4_dinov2", {}),
        ("vit_small_patch16_dinov3", dict(use_fc_norm=False)),
        ("beitv2_base_patch16_224", dict(use_fc_norm=False)),
    ],
)
def test_architecture_comes_from_the_file(tmp_path, arch, kwargs, window):
    path = str(tmp_path / "teacher.safetensors")
    vit = save_own(path, arch, **kwargs)
    adapter = TimmViT(checkpoint=path, **window)
    assert type(adapter.vit) is type(vit)
    adapter.init_weights()
    given = adapter.vit.state_dict()
    for name, tensor in vit.state_dict().items():
        if name in given:
            torch.testing.assert_close(given[name], tensor, rtol=0, atol=0)
    assert len(vit.state_dict()) - len(given) == (
        0 if not window else sum("_token" in name for name in vit.state_dict())
    )
    assert not any(isinstance(m, timm.layers.DropPath) for m in adapter.modules())
    larger = TimmViT(checkpoint=path, img_size=(48, 64), **window)
    larger.init_weights()
    assert larger(torch.randn(1, 3, 48, 64))[-1].isfinite().all()


def test_architecture_of_a_foreign_file(tmp_path, caplog):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=4)
    torch.save(vit.state_dict(), tmp_path / "foreign.pth")
    adapter = TimmViT(checkpoint=str(tmp_path / "foreign.pth"))
    adapter.init_weights()
    assert (adapter.embed_dim, len(adapter.vit.blocks), adapter.patch_size) == (192, 4, 16)
    torch.testing.assert_close(adapter.vit.pos_embed, vit.pos_embed, rtol=0, atol=0)


def test_swin_file_is_refused(tmp_path):
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
    torch.save(swin.state_dict(), tmp_path / "swin.pth")
    with pytest.raises(ValueError, match="use mst_transfer.TimmSwin"):
        TimmViT(checkpoint=str(tmp_path / "swin.pth"))


def test_what_may_be_missing(tmp_path):
    vit = save_own(tmp_path / "t.safetensors", "vit_tiny_patch16_224")
    torch.save({n: v for n, v in vit.state_dict().items() if not n.startswith("norm.")}, tmp_path / "part.pth")
    options = dict(arch="vit_tiny_patch16_224", **SIZE, checkpoint=str(tmp_path / "part.pth"))
    with pytest.raises(BackboneNotCoveredError, match="norm.weight"):
        TimmViT(**options).init_weights()
    TimmViT(**options, may_miss=["norm"]).init_weights()


def test_channels(tmp_path):
    path = str(tmp_path / "t.safetensors")
    vit = save_own(path, "vit_tiny_patch16_224")
    adapter = TimmViT(checkpoint=path, in_chans=1).eval()
    adapter.init_weights()
    assert adapter.vit.patch_embed.proj.weight.shape == (48, 1, 8, 8)
    grey = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        three = vit.eval().forward_intermediates(
            grey.expand(-1, 3, -1, -1), indices=1, norm=True, intermediates_only=True
        )
        torch.testing.assert_close(adapter(grey)[-1], three[0], atol=1e-4, rtol=1e-4)


def test_found_architecture_is_logged(tmp_path):
    from mmengine.logging import MMLogger

    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    MMLogger.get_instance("test_vit_checkpoints").addHandler(handler)
    path = str(tmp_path / "t.safetensors")
    save_own(path, "vit_tiny_patch16_224")
    TimmViT(checkpoint=path)
    assert any("is of arch='vit_tiny_patch16_224', img_size=32, patch_size=8" in record for record in records)
