"""Every supported class of timm: features equal timm's own, at the built-in size and at others; training behaves."""

import pytest
import timm
import torch
from torch import nn

from mst_transfer.models.backbones.vit import TimmViT

SMALL = dict(embed_dim=48, depth=4, num_heads=3, img_size=56, patch_size=8)
CASES = {
    "ViT, class token": ("vit_tiny_patch16_224", {}),
    "ViT without class token, mean pooling": ("vit_base_patch16_rpn_224", dict(mlp_ratio=2)),
    "ViT, DINOv2 with registers and LayerScale": ("vit_small_patch14_reg4_dinov2", {}),
    "ViT, DINOv2 with SwiGLU": ("vit_giant_patch14_dinov2", {}),
    "ViT, DeiT III": ("deit3_small_patch16_224", {}),
    "ViT, distilled DeiT": ("deit_tiny_distilled_patch16_224", {}),
    "ViT, norm before the blocks": ("vit_base_patch16_clip_224", {}),
    "ViT, no positions": ("vit_tiny_patch16_224", dict(pos_embed="none")),
    "ViT, one channel": ("vit_tiny_patch16_224", dict(in_chans=1)),
    "ViT, patch of 14": ("vit_tiny_patch16_224", dict(patch_size=14)),
    "Eva, DINOv3": ("vit_small_patch16_dinov3", {}),
    "Eva, DINOv3 with SwiGLU": ("vit_small_plus_patch16_dinov3", {}),
    "Eva, EVA-02": ("eva02_tiny_patch14_224", {}),
    "Eva, EVA with mean pooling": ("eva_giant_patch14_224", dict(mlp_ratio=2)),
    "Eva, EVA-02 with norm behind": ("eva02_enormous_patch14_clip_224", dict(mlp_ratio=2)),
    "Eva, rotations of each block": ("vit_small_patch16_rope_mixed_224", {}),
    "Eva, rotations of each block and embeddings": ("vit_small_patch16_rope_mixed_ape_224", {}),
    "Eva, perception encoder": ("vit_pe_core_tiny_patch16_384", {}),
    "Eva, Sapiens2": ("vit_base_patch16_sapiens2", dict(num_kv_heads=(3, 1, 1, 3))),
    "Beit, BEiT v2": ("beitv2_base_patch16_224", {}),
    "Beit, one table for all blocks and embeddings": (
        "beit_base_patch16_224",
        dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True, use_abs_pos_emb=True),
    ),
}
NORMS = {"timm.models.beit": "use_fc_norm", "timm.models.eva": "use_fc_norm"}


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Draws all parameters anew, those too that start as zeros or ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1 and ("norm" in name or "gamma" in name or ".ls" in name) and "bias" not in name:
                parameter.copy_(0.7 + 0.2 * noise)
            else:
                parameter.copy_(0.15 * noise if "relative_position" not in name else noise)


def make(case: str, **options) -> TimmViT:
    arch, overrides = CASES[case]
    adapter = TimmViT(arch, **SMALL | overrides | options)
    randomise(adapter)
    return adapter


def make_twin(case: str, adapter: TimmViT, size: tuple[int, int]) -> nn.Module:
    """timm's model of one fixed image size with the adapter's weights."""
    arch, overrides = CASES[case]
    norm = NORMS.get(timm.model_entrypoint(arch).__module__, "fc_norm")
    twin = timm.create_model(arch, pretrained=False, num_classes=0, **{norm: False}, **SMALL | overrides)
    twin.attn_pool = None
    twin.load_state_dict(adapter.vit.state_dict(), strict=True)
    twin.set_input_size(img_size=size)
    return twin


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("patches", [(7, 7), (4, 9)])
def test_features_equal_timms(case, patches):
    adapter = make(case).eval()
    size = tuple(side * adapter.patch_size for side in patches)
    if case == "ViT, no positions":
        size = (56, 56)  # timm's own model cannot change its size then
    twin = make_twin(case, adapter, size).eval()
    image = torch.randn(2, CASES[case][1].get("in_chans", 3), *size)
    with torch.no_grad():
        theirs = twin.forward_intermediates(image, indices=[0, 1, 2, 3], norm=True, intermediates_only=True)
        ours = adapter(image)
    assert len(ours) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


TRAINED = ["ViT, DINOv2 with registers and LayerScale", "ViT, distilled DeiT"]
TRAINED += ["Eva, DINOv3", "Eva, rotations of each block and embeddings", "Beit, BEiT v2"]
TRAINED += ["Beit, one table for all blocks and embeddings"]
WINDOWS = dict(window_size=3, global_blocks=(1, 3))


@pytest.mark.parametrize(
    ("case", "windows"), [*((case, {}) for case in TRAINED), *((case, WINDOWS) for case in TRAINED[:3])]
)
def test_training(case, windows):
    """All parameters get gradients, the same with recomputation; the seed decides; frozen parts stay."""
    options = dict(windows, drop_path_rate=0.3, out_indices=(1, 3), out_norm="last")
    image = torch.randn(3, 3, 41, 64)
    runs = []
    for with_cp in (False, False, True):
        adapter = make(case, with_cp=with_cp, **options).train()
        torch.manual_seed(5)
        sum(grid.square().mean() for grid in adapter(image)).backward()
        assert [name for name, p in adapter.named_parameters() if p.grad is None] == []
        runs.append({name: p.grad for name, p in adapter.named_parameters()})
    for other in runs[1:]:
        torch.testing.assert_close(other, runs[0])

    frozen = make(case, frozen_stages=2, **options).train()
    before = {name: p.clone() for name, p in frozen.named_parameters()}
    optimizer = torch.optim.SGD(frozen.parameters(), lr=0.1, weight_decay=0.1)
    sum(grid.square().mean() for grid in frozen(image)).backward()
    optimizer.step()
    moved = {name.removeprefix("vit.") for name, p in frozen.named_parameters() if not torch.equal(p, before[name])}
    assert {".".join(name.split(".")[:2]) for name in moved} <= {"blocks.2", "blocks.3", "norm.weight", "norm.bias"}
    assert "blocks.2.norm1.weight" in moved and "norm.weight" in moved


@pytest.mark.parametrize("case", TRAINED[:3])
def test_bfloat16_autocast(case):
    adapter = make(case, window_size=3, out_indices=(3,)).train()
    image = torch.randn(1, 3, 56, 40)
    (exact,) = adapter(image)
    with torch.autocast("cpu", torch.bfloat16):
        (rough,) = adapter(image)
    rough.float().square().mean().backward()
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
