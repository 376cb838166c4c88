"""Which mean and standard deviation are known, from whom, and which are assumed."""

import pytest
import timm
import torch
from small_vit import make_metadata

from mst_transfer.checkpoint import load_backbone, save_backbone
from mst_transfer.checkpoint.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalisation_of, timm_remark

HALF = (0.5, 0.5, 0.5)


def test_the_surest_source_wins():
    metadata = make_metadata(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    recorded = normalisation_of(metadata, "vit_small_patch16_224.augreg_in21k")
    assert (recorded.mean, recorded.std, recorded.known) == (metadata.mean, metadata.std, True)
    for arch, mean, known in (
        ("vit_small_patch16_224.augreg_in21k", HALF, True),
        ("vit_small_patch16_224.dino", IMAGENET_MEAN, True),
        ("vit_small_patch16_224", IMAGENET_MEAN, False),
        (None, IMAGENET_MEAN, False),
    ):
        found = normalisation_of(None, arch)
        assert (found.mean, found.known) == (mean, known)
        assert ("assumed" in found.line()) != known
    given = normalisation_of(metadata, None, mean=HALF)
    assert (given.mean, given.std, given.known) == (HALF, metadata.std, True)
    assert not normalisation_of(None, None, mean=HALF).known
    assert normalisation_of(None, None, mean=HALF, std=IMAGENET_STD).known


@pytest.mark.parametrize("options", [dict(mean=(123.7, 116.3, 103.5)), dict(std=(0.0, 1.0, 1.0))])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must lie between"):
        normalisation_of(None, None, **options)


@pytest.mark.parametrize(("arch", "told"), [("vit_tiny_patch16_224", True), ("deit_tiny_patch16_224", False)])
def test_a_load_tells_of_timms_other_normalisation(arch, told, tmp_path):
    model = timm.create_model(arch, depth=1, num_classes=0)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    report = load_backbone(model, tmp_path / "x.pth")
    assert (str(list(HALF)) in report.normalisation) == told == ("normalisation" in report.table())
    metadata = make_metadata(arch=arch, arch_kwargs=dict(depth=1), embed_dim=192, patch_size=16, img_size=(224, 224))
    save_backbone(tmp_path / "x.safetensors", model.state_dict(), metadata)
    assert load_backbone(model, tmp_path / "x.safetensors").normalisation == "" == timm_remark(model, metadata)
