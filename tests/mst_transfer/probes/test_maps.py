"""Maps of tokens: principal components equal those of an SVD, whatever the photos' sizes."""

import numpy as np
import pytest
import torch

from mst_transfer.probes.attention import attention_maps
from mst_transfer.probes.backbones import load_frozen
from mst_transfer.probes.features import patch_tokens
from mst_transfer.probes.maps import overlay, pca_maps, photo_maps

VIT = dict(arch="vit_tiny_patch16_224", arch_kwargs=dict(depth=2, embed_dim=48, num_heads=3))
SWIN = dict(
    arch="swin_tiny_patch4_window7_224", arch_kwargs=dict(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 3))
)


@pytest.fixture(params=[VIT, SWIN], ids=["vit", "swin"])
def frozen(request):
    return load_frozen("random", **request.param)[0]


def test_principal_components_are_those_of_all_images_together():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(9, 9, generator=generator) * torch.tensor([9.0, 5, 3, 2, 1, 1, 1, 1, 1])
    tokens = [torch.randn(h, w, 9, generator=generator) @ mixing.T + 7 for h, w in ((4, 6), (5, 3))]
    flat = torch.cat([one.reshape(-1, 9) for one in tokens]).double().numpy()
    _, _, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    expected = np.empty((len(flat), 3))
    for number, axis in enumerate(axes[:3]):
        share = (flat - flat.mean(0)) @ (axis if axis[np.abs(axis).argmax()] > 0 else -axis)
        expected[:, number] = 255 * (share - share.min()) / (share.max() - share.min())
    found = pca_maps(tokens)
    assert [one.shape for one in found] == [(4, 6, 3), (5, 3, 3)] and all(one.dtype == np.uint8 for one in found)
    np.testing.assert_allclose(np.concatenate([one.reshape(-1, 3) for one in found]), expected.round(), atol=1)
    assert all(np.concatenate([one.reshape(-1, 3) for one in found])[:, k].tolist().count(255) == 1 for k in range(3))


def test_equal_tokens_have_no_components():
    assert not pca_maps([torch.ones(2, 2, 4)])[0].any()


def test_photos_are_seen_whole_at_multiples_of_a_token(frozen):
    random = np.random.default_rng(0)
    photos = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((70, 100), (200, 90))]
    maps = photo_maps(frozen, photos, side=128)
    sizes = [(64, 96, 3), (128, 64, 3)]
    assert [one.shape for one in maps["attention"]] == [one.shape for one in maps["components"]] == sizes
    photo = random.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    views = frozen.normalise(torch.from_numpy(photo).permute(2, 0, 1)[None])
    with torch.no_grad():
        attended = attention_maps(frozen.model, views)[0].mean(0).numpy()
        tokens = patch_tokens(frozen.model, views)[0]
    found = photo_maps(frozen, [photo])
    np.testing.assert_allclose(found["attention"][0], overlay(photo / 255, attended) * 255, atol=0.51)
    token = 96 // tokens.shape[1]
    assert (found["components"][0][::token, ::token] == pca_maps([tokens])[0]).all()
    assert (found["components"][0] == np.kron(pca_maps([tokens])[0], np.ones((token, token, 1), np.uint8))).all()
