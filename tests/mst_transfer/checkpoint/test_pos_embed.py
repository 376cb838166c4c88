"""Position embeddings on another grid: timm's resampling, DINO's, and what a checkpoint says about it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from keys_cubic import resampled
from small_vit import dino_full, make_metadata, make_vit

from mst_transfer.checkpoint import BackboneRefusedError, load_backbone, save_backbone
from mst_transfer.checkpoint.pos_embed import fit_pos_embed, use_pos_embed_interpolation


@pytest.mark.parametrize("size", [(64, 64), (16, 48), (32, 64)])
def test_pos_embed_is_resampled_as_timm_does(saved, size):
    model, path = saved
    other = make_vit(img_size=size)
    report = load_backbone(other, path)
    assert report.resized == {"pos_embed": f"4x4 -> {size[0] // 8}x{size[1] // 8}"}
    # Oracle 1: the definition, written out. Oracle 2: timm changes the input size of the trained model
    # itself.
    prefix, grid = model.pos_embed[:, :1], model.pos_embed[:, 1:]  # [1, 1, D], [1, 16, D]
    grid = grid.reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (size[0] // 8, size[1] // 8), mode="bicubic", antialias=True)
    expected = torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(other.pos_embed, expected)
    model.set_input_size(img_size=size)
    torch.testing.assert_close(other.pos_embed, model.pos_embed)


def dino_resampled(pos_embed, rows, columns):
    """With DINO's scale."""
    return resampled(pos_embed, (4, 4), (rows, columns), more=0.1)


@pytest.mark.parametrize("size", [(64, 64), (16, 48), (24, 24)])
def test_pos_embed_is_resampled_as_the_metadata_say(tmp_path, size):
    model = make_vit()
    metadata = make_metadata(pos_embed_interpolation="dino")
    save_backbone(tmp_path / "dino.safetensors", model.state_dict(), metadata)
    other = make_vit(img_size=size)
    report = load_backbone(other, tmp_path / "dino.safetensors")
    expected = dino_resampled(model.pos_embed, size[0] // 8, size[1] // 8)
    torch.testing.assert_close(other.pos_embed, expected, atol=1e-5, rtol=1e-5)
    assert report.pos_embed_interpolation == "dino"
    assert report.resized["pos_embed"] == f"4x4 -> {size[0] // 8}x{size[1] // 8} (dino)"
    as_asked = load_backbone(other, tmp_path / "dino.safetensors", pos_embed_interpolation="timm")
    model.set_input_size(img_size=size)
    torch.testing.assert_close(other.pos_embed, model.pos_embed)
    assert as_asked.pos_embed_interpolation == "timm"


@pytest.mark.parametrize("options", [{}, dict(reg_tokens=2), dict(reg_tokens=2, no_embed_class=True)])
@pytest.mark.parametrize("size", [(32, 32), (48, 24), (16, 16)])
def test_forward_pass_resamples_as_dino(options, size):
    """Against timm's own pass through a model whose fixed grid has been resampled beforehand."""
    torch.manual_seed(0)
    model = make_vit(dynamic_img_size=True, **options).eval()
    fixed = make_vit(img_size=size, **options).eval()
    num_prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    state = model.state_dict()
    first = state["pos_embed"][:, :num_prefix]
    padded = torch.cat([torch.zeros(1, 1, 24), state["pos_embed"][:, num_prefix:]], dim=1)
    grid = padded if size == (32, 32) else dino_resampled(padded, size[0] // 8, size[1] // 8)
    fixed.load_state_dict(state | {"pos_embed": torch.cat([first, grid[:, 1:]], dim=1)})
    images = torch.randn(2, 3, *size)
    as_timm = model.forward_features(images)
    use_pos_embed_interpolation(model, "dino")
    copied = copy.deepcopy(model)
    for vit in (model, copied):
        torch.testing.assert_close(vit.forward_features(images), fixed.forward_features(images))
    with torch.no_grad():
        copied.pos_embed.zero_()  # a copy reads its own embeddings
    assert not torch.allclose(copied.forward_features(images), model.forward_features(images))
    use_pos_embed_interpolation(model, "timm")
    torch.testing.assert_close(model.forward_features(images), as_timm, rtol=0, atol=0)


def test_dinos_training_checkpoints_are_resampled_as_in_training(tmp_path):
    content = dino_full(make_vit(), make_vit())
    torch.save(content, tmp_path / "checkpoint.pth")
    torch.save(content["teacher"], tmp_path / "teacher.pth")
    assert load_backbone(make_vit(), tmp_path / "checkpoint.pth").pos_embed_interpolation == "dino"
    assert load_backbone(make_vit(), tmp_path / "teacher.pth").pos_embed_interpolation == "timm"  # bears no mark


def test_pos_embed_of_a_rectangle_is_read_as_such(tmp_path):
    wide = make_vit(img_size=(16, 64))  # 2x8 = 16 tokens: as many as a 4x4 square
    save_backbone(tmp_path / "wide.safetensors", wide.state_dict(), make_metadata(img_size=(16, 64)))
    square = make_vit()
    assert load_backbone(square, tmp_path / "wide.safetensors").resized == {"pos_embed": "2x8 -> 4x4"}
    wide.set_input_size(img_size=(32, 32))
    torch.testing.assert_close(square.pos_embed, wide.pos_embed)


@pytest.mark.parametrize("shape", [(96,), (5, 24), (2, 5, 24), (1, 5, 24, 1)], ids=str)
def test_another_number_of_dimensions_is_refused_in_words(shape):
    with pytest.raises(BackboneRefusedError, match="file.pth: pos_embed has the shape .* tokens, width"):
        fit_pos_embed(make_vit(), torch.zeros(shape), None, "timm", "file.pth")
