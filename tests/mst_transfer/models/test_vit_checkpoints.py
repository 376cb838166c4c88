"""Loading into the adapters: the architecture from the file, what may be missing, every class, windows, channels."""

import pytest
import timm
import torch
from mmengine.runner.checkpoint import get_state_dict, load_state_dict

from mst_transfer.checkpoint import BackboneMetadata, BackboneNotCoveredError, save_backbone
from mst_transfer.checkpoint.pos_embed import MARK, resample_pos_embed
from mst_transfer.models.backbones.vit import TimmViT

SIZE = dict(img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=3)
SMALL = dict(arch="vit_tiny_patch16_224", patch_size=8, embed_dim=48, depth=4, num_heads=3)
NORM = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def save_own(path, arch="vit_tiny_patch16_224", interpolation="timm", **kwargs):
    """A file of ours, and the model in it."""
    kwargs = SIZE | kwargs
    vit = timm.create_model(arch, num_classes=0, **kwargs)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(std=0.1)
    metadata = BackboneMetadata(
        arch, kwargs, 8, (32, 32), 48, role="teacher", pos_embed_interpolation=interpolation, **NORM
    )
    save_backbone(path, vit.state_dict(), metadata)
    return vit


@pytest.mark.parametrize(
    ("arch", "kwargs", "window"),
    [
        ("vit_tiny_patch16_224", dict(drop_path_rate=0.2), {}),
        ("vit_small_patch14_reg4_dinov2", {}, dict(window_size=2)),
        ("vit_small_patch16_dinov3", dict(use_fc_norm=False), dict(window_size=2)),
        ("beitv2_base_patch16_224", dict(use_fc_norm=False), {}),
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


def test_architecture_of_a_foreign_file(tmp_path):
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


@pytest.mark.parametrize("img_size", [32, 64])
def test_position_embeddings_are_resampled_as_in_pre_training(tmp_path, img_size):
    path = str(tmp_path / "teacher.safetensors")
    vit = save_own(path, interpolation="dino")
    options = dict(SMALL, img_size=img_size, out_indices=(3,))
    adapter = TimmViT(**options, checkpoint=path).eval()
    adapter.init_weights()
    image = torch.randn(1, 3, 40, 72)  # 5 x 9 patches
    grid = resample_pos_embed(vit.pos_embed, (img_size // 8, img_size // 8), (4, 4), 1, "dino")
    grid = resample_pos_embed(grid, (5, 9), (img_size // 8, img_size // 8), 1, "dino")
    tokens = vit.patch_embed.proj(image).flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token, tokens], dim=1) + grid
    for block in vit.blocks.eval():
        tokens = block(tokens)
    expected = vit.norm(tokens)[:, 1:].transpose(1, 2).reshape(1, 48, 5, 9)
    torch.testing.assert_close(adapter(image)[0], expected)

    tested = TimmViT(**options).eval()  # as a test run: no pre-training file, weights of the whole model
    load_state_dict(tested, get_state_dict(adapter), strict=True)
    torch.testing.assert_close(tested(image)[0], expected)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in adapter.state_dict().items()}}, tmp_path / "detector.pth")
    again = TimmViT(**options, checkpoint=str(tmp_path / "detector.pth")).eval()
    again.init_weights()
    torch.testing.assert_close(again(image)[0], expected)

    as_asked = TimmViT(**options, pos_embed_interpolation="timm").eval()
    load_state_dict(as_asked, get_state_dict(adapter), strict=True)
    plain = {k: v for k, v in adapter.state_dict().items() if k != MARK}
    load_state_dict(tested, plain, strict=True)  # a checkpoint without the mark
    assert (as_asked(image)[0] - expected).abs().max() > 1e-3
    torch.testing.assert_close(tested(image)[0], as_asked(image)[0])
    dino = TimmViT(**options, pos_embed_interpolation="dino").eval()
    load_state_dict(dino, plain, strict=True)
    torch.testing.assert_close(dino(image)[0], expected)


def test_checkpoint_of_another_architecture_stops(tmp_path):
    path = str(tmp_path / "deep.safetensors")
    save_own(path, depth=5)
    with pytest.raises(ValueError, match="depth 5.*depth 4"):
        TimmViT(**SMALL, img_size=32, checkpoint=path).init_weights()
    # Fewer outputs than blocks do not hide it.
    with pytest.raises(ValueError, match="depth 5.*depth 4"):
        TimmViT(**SMALL, img_size=32, checkpoint=path, out_indices=(1,)).init_weights()
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        TimmViT(**SMALL, img_size=32, checkpoint=str(tmp_path / "absent.safetensors")).init_weights()


def test_what_is_not_covered_stops_or_may_be_missing(tmp_path):
    vit = save_own(tmp_path / "t.safetensors")
    torch.save({n: v for n, v in vit.state_dict().items() if not n.startswith("norm.")}, tmp_path / "part.pth")
    options = dict(SMALL, img_size=32, checkpoint=str(tmp_path / "part.pth"))
    with pytest.raises(BackboneNotCoveredError, match="norm.weight"):
        TimmViT(**options).init_weights()
    TimmViT(**options, may_miss=["norm"]).init_weights()
    TimmViT(**options, out_norm="none").init_weights()  # needs no norm


def test_what_is_logged(tmp_path, messages):
    save_own(tmp_path / "t.safetensors")
    TimmViT(checkpoint=str(tmp_path / "t.safetensors"))
    assert "is of arch='vit_tiny_patch16_224', img_size=32, patch_size=8" in messages.pop()
    TimmViT(**SMALL, img_size=32).init_weights()
    assert messages == ["TimmViT: random initialisation (checkpoint=None)"]
