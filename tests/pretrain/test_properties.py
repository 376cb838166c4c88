"""Properties of pre-training that hold for every valid setting; an invalid one is refused by the name of the option."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mst_transfer.checkpoint.pos_embed import resample_pos_embed
from pretrain.attmask import ATTMASK_MODES, build_mask_generator
from pretrain.data.augment import MultiCropOptions
from pretrain.data.dataset import MultiCropDataset
from pretrain.masking import MODES
from pretrain.model import MST

quick = settings(max_examples=60, deadline=None, derandomize=True)
few = settings(max_examples=12, deadline=None, derandomize=True)
numbers = st.floats(-0.5, 1.5) | st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])
MASKING = st.fixed_dictionaries(
    {"mode": st.sampled_from([*MODES, *ATTMASK_MODES, "other"]), "num": st.integers(-1, 20)},
    optional={name: numbers for name in ("p", "ratio", "ratio_var", "image_prob", "show_max")}
    | {"views": st.lists(st.integers(-1, 2), max_size=3)},
)


@quick
@given(MASKING, st.integers(1, 5), st.integers(1, 30), st.integers(0, 2**40))
def test_masks_keep_what_their_mode_promises(options: dict, batch: int, num_patches: int, step: int) -> None:
    if options["mode"] != "attention":
        options.pop("num")
    try:
        masks = build_mask_generator(**options)
        masks.check_size(num_patches)
    except ValueError as error:
        assert str(error).startswith("masking")
        return
    importance = torch.rand(2 * batch, num_patches, generator=torch.Generator().manual_seed(step))
    ids = torch.arange(batch)
    mask = masks(importance, ids, step, 2, num_patches)
    if masks.mode == "none":
        assert mask is None
        return
    assert mask is not None and mask.dtype == torch.bool and mask.shape == (2 * batch, num_patches)
    again = masks(importance, ids.flip(0), step, 2, num_patches)
    assert masks.needs_importance or torch.equal(again.view(2, batch, -1).flip(1), mask.view(2, batch, -1))
    for view in {0, 1} - set(masks.views):
        assert not mask[view * batch : (view + 1) * batch].any()
    for row in range(2 * batch):
        hidden, shown = importance[row][mask[row]], importance[row][~mask[row]]
        if masks.mode == "attention":
            count = num_patches // masks.num
            lowest = importance[row].argsort()[:count]
            assert set(mask[row].nonzero().flatten().tolist()) <= set(lowest.tolist())
            if masks.p == 1 and row // batch in masks.views:
                assert len(hidden) == count and (not count or not len(shown) or hidden.max() <= shown.min())
        elif masks.mode in ("attention_high", "attention_hint"):
            most = int(num_patches * (masks.ratio + masks.ratio_var) + 1e-9)
            assert len(hidden) <= most
            if masks.mode == "attention_high" and len(hidden) and len(shown):
                assert hidden.min() >= shown.max()


@few
@given(
    patch=st.sampled_from([4, 8, 16]), rows=st.integers(2, 4), heads=st.integers(1, 3), depth=st.integers(1, 2),
    mode=st.sampled_from([*MODES, *ATTMASK_MODES]), with_decoder=st.booleans(), batch=st.integers(2, 3),
    num_local=st.integers(0, 2),
)  # fmt: skip
def test_any_valid_model_makes_a_step(
    patch: int, rows: int, heads: int, depth: int, mode: str, with_decoder: bool, batch: int, num_local: int
) -> None:
    torch.manual_seed(0)
    size, local = patch * rows, patch * (rows - 1)
    masking = {"mode": mode} | ({"num": 2} if mode == "attention" else {"p": 0.5} if mode == "random" else {})
    masking |= {"ratio": 0.6, "show_max": 0.5} if mode == "attention_hint" else {}
    mst = MST(
        backbone=dict(
            arch="vit_tiny_patch16_224", img_size=size, patch_size=patch, embed_dim=8 * heads, depth=depth,
            num_heads=heads,
        ),
        head=dict(out_dim=16, hidden_dim=8, bottleneck_dim=4),
        masking=masking,
        decoder=dict(channels=(4,) * (patch.bit_length() - 1)) if with_decoder else None,
    ).train()  # fmt: skip
    crops = torch.randint(0, 256, (batch, 2, 3, size, size), dtype=torch.uint8)
    small = torch.randint(0, 256, (batch, num_local, 3, local, local), dtype=torch.uint8)
    before = mst.dino_loss.center.clone()
    losses = mst(crops, small, torch.arange(batch), step=3)
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mst.backbone_parameters())
    assert 0 <= losses["mask_ratio"] <= 1 and ("loss_restoring" in losses) == with_decoder
    assert 0 <= losses["teacher_entropy"] <= np.log(16) + 1e-5 and before.shape == mst.dino_loss.center.shape
    if mode == "attention":
        assert losses["mask_ratio"] == pytest.approx(rows * rows // 2 / rows**2)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "num_local_crops": st.integers(-1, 4), "global_size": st.integers(0, 48), "local_size": st.integers(0, 32),
        "global_scale": st.just((0.4, 1.0)) | st.tuples(numbers, numbers),
        "global_blur_probs": st.just((1.0, 0.1)) | st.tuples(numbers, numbers),
    },
)  # fmt: skip


@quick
@given(OPTIONS, st.integers(0, 2**40))
def test_views_have_the_sizes_that_were_asked_for(photo_folder, options: dict, seed: int) -> None:
    try:
        data = MultiCropDataset(photo_folder, seed=seed, max_images=3, **options)
    except (ValueError, TypeError) as error:
        assert any(name in str(error) for name in (*options, "scale", "option")), error
        return
    sample, asked = data[1], data.options
    assert isinstance(asked, MultiCropOptions)
    assert sample["global_crops"].shape == (2, 3, asked.global_size, asked.global_size)
    locals_ = sample["local_crops"]
    assert locals_.shape[0] == asked.num_local_crops and locals_.dtype == torch.uint8


grids = st.tuples(st.integers(1, 12), st.integers(1, 12))


@quick
@given(grids, grids, st.integers(0, 3), st.integers(1, 6), st.sampled_from(["timm", "dino"]))
def test_positions_of_any_grid_fit_any_other(old, new, num_prefix: int, width: int, interpolation: str) -> None:
    constant = torch.arange(float(width)).expand(1, num_prefix + old[0] * old[1], width).clone()
    fitted = resample_pos_embed(constant, new, old, num_prefix, interpolation)
    assert fitted.shape == (1, num_prefix + new[0] * new[1], width)
    torch.testing.assert_close(fitted, constant[:, :1].expand_as(fitted), atol=1e-4, rtol=1e-4)
    noise = torch.randn_like(constant)
    changed = resample_pos_embed(noise, new, old, num_prefix, interpolation)
    assert torch.isfinite(changed).all() and torch.equal(changed[:, :num_prefix], noise[:, :num_prefix])
    assert old != new or torch.equal(changed, noise)
