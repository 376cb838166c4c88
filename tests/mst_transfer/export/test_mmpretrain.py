"""The Swin layout of mmdet, mmseg and mmpretrain, against mmdet's own code."""

import pytest
import torch
from mmengine import ConfigDict
from timm.models.swin_transformer import PatchMerging

from mst_transfer.checkpoint.sources.swin import channel_first, position_first
from mst_transfer.export import mmpretrain_layout
from mst_transfer.export.convert import convert

transformer = pytest.importorskip("mmdet.models.layers", reason="mmdet is not installed")


def test_patch_merging_with_reordered_weights_is_timms() -> None:
    torch.manual_seed(0)
    timms = PatchMerging(dim=3, out_dim=5)
    mms = transformer.PatchMerging(in_channels=3, out_channels=5)
    torch.nn.init.normal_(timms.norm.weight)
    torch.nn.init.normal_(timms.norm.bias)
    for name, tensor in timms.state_dict().items():
        assert torch.equal(position_first(channel_first(tensor)), tensor)
        mms.state_dict()[name].copy_(channel_first(tensor))
    grid = torch.randn(2, 4, 6, 3)  # [B, h, w, C]
    found, size = mms(grid.flatten(1, 2), (4, 6))
    torch.testing.assert_close(found.unflatten(1, size), timms(grid), atol=1e-5, rtol=0)


@pytest.mark.parametrize("original", ["swin"], indirect=True)
@pytest.mark.parametrize("library", ["mmdet", "mmseg"])
def test_the_library_loads_the_file_by_init_cfg(original, library, tmp_path) -> None:
    backbones = pytest.importorskip(f"{library}.models.backbones", reason=f"{library} is not installed")
    convert(original, mmpretrain_layout.TARGET, tmp_path / "out.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "out.pth"), prefix="backbone.")
    model = backbones.SwinTransformer(**mmpretrain_layout.swin_arguments(original), init_cfg=ConfigDict(init_cfg))
    model.init_weights()
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.eval()  # whose train() returns nothing
        found = model(image)[-1]
        expected = original.model((64, 96)).forward_features(image).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
