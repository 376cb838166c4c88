"""Patch embeddings of another size or number of channels: against the definitions, and against timm's own loading."""

import pytest
import timm
import torch
import torch.nn.functional as F
from small_vit import SMALL, make_vit

from mst_transfer.checkpoint import BackboneRefusedError, load_backbone
from mst_transfer.checkpoint.patch_embed import fit_patch_embed


def pseudo_inverse_resized(kernel: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The kernel [h, w] whose products with resized patches are nearest those with the originals (FlexiViT, eq. 5)."""
    basis = torch.eye(kernel.numel()).reshape(-1, 1, *kernel.shape)
    resize = F.interpolate(basis, size, mode="bicubic", antialias=True).flatten(1).T.double()  # [new, old]
    solution = torch.linalg.lstsq(resize.T, kernel.double().flatten()[:, None], driver="gelsd").solution
    return solution.reshape(size).float()


@pytest.mark.parametrize("patch", [4, 6, 12])
def test_patches_are_resized_by_the_pseudo_inverse(saved, patch):
    model, path = saved
    other = make_vit(patch_size=patch, img_size=4 * patch)
    report = load_backbone(other, path)
    assert report.resized == {"patch_embed.proj.weight": f"8x8 -> {patch}x{patch}"}
    assert "features are near the checkpoint's, not equal" in report.remark
    old, new = model.patch_embed.proj.weight, other.patch_embed.proj.weight
    for d, channel in ((0, 0), (5, 2), (23, 1)):
        expected = pseudo_inverse_resized(old[d, channel].detach(), (patch, patch))
        torch.testing.assert_close(new[d, channel], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_channels_are_adapted_as_timm_does(saved, tmp_path, channels):
    model, path = saved
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    other = make_vit(in_chans=channels)
    report = load_backbone(other, path)
    assert report.resized == {"patch_embed.proj.weight": f"3 -> {channels} channels"}
    overlay = dict(file=str(tmp_path / "timm.pth"), num_classes=0)
    as_timm = timm.create_model(
        "vit_tiny_patch16_224", True, pretrained_cfg_overlay=overlay, num_classes=0, in_chans=channels, **SMALL
    )
    torch.testing.assert_close(other.patch_embed.proj.weight, as_timm.patch_embed.proj.weight, rtol=0, atol=0)


def test_a_grey_image_in_three_channels_gives_what_one_channel_gave(tmp_path):
    model, other = make_vit(in_chans=1), make_vit()
    torch.save(model.state_dict(), tmp_path / "grey.pth")
    load_backbone(other, tmp_path / "grey.pth")
    image = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(other(image.expand(-1, 3, -1, -1)), model(image), atol=1e-5, rtol=1e-5)


def test_other_channels_are_refused(tmp_path):
    torch.save(make_vit(in_chans=4).state_dict(), tmp_path / "four.pth")
    with pytest.raises(BackboneRefusedError, match="takes 4 channels, the model 3.*in_chans=4"):
        load_backbone(make_vit(), tmp_path / "four.pth")


def test_size_channels_and_position_at_once():
    weight = torch.randn(24, 3, 8, 8)
    fitted, change = fit_patch_embed(weight, (24, 1, 6, 4), "file")
    assert fitted.shape == (24, 1, 6, 4) and change == "3 -> 1 channels, 8x8 -> 6x4"
    expected = pseudo_inverse_resized(weight.sum(1)[3], (6, 4))
    torch.testing.assert_close(fitted[3, 0], expected, atol=1e-4, rtol=1e-4)
