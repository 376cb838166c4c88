"""Windows against a plain loop over them: with rotations and stochastic depth."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat

from mst_transfer.models.backbones.vit import TimmViT
from mst_transfer.models.backbones.vit_windows import Windows

SMALL = dict(embed_dim=48, depth=4, num_heads=3, img_size=56, patch_size=8, out_indices=(3,), out_norm="none")


@pytest.mark.parametrize("grid", [(6, 4), (5, 7), (2, 2), (1, 9), (5, 4), (4, 7)])
def test_splitting_and_merging(grid):
    windows = Windows(grid, 2)
    cells = torch.arange(grid[0] * grid[1], dtype=torch.float32).reshape(1, -1, 1).repeat(2, 1, 3)
    ordered = windows.order(cells)
    parts = windows.split(ordered)
    rows, columns = -(-grid[0] // 2), -(-grid[1] // 2)
    assert parts.shape == (2 * rows * columns, 4, 3)
    padded = F.pad(cells[0, :, 0].reshape(grid), (0, columns * 2 - grid[1], 0, rows * 2 - grid[0]))
    expected = [padded[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].flatten() for r in range(rows) for c in range(columns)]
    torch.testing.assert_close(parts[: rows * columns, :, 0], torch.stack(expected))
    torch.testing.assert_close(windows.restore(windows.merge(parts, 2)), cells)


def test_windows_that_divide_the_grid_copy_nothing_in_a_block():
    windows = Windows((6, 4), 2)
    ordered = windows.order(torch.randn(2, 24, 3))
    assert windows.split(ordered).data_ptr() == ordered.data_ptr()
    assert windows.merge(windows.split(ordered), 2).data_ptr() == ordered.data_ptr()


def attention(attn, tokens, rope):
    """Attention of one image, written out; ``tokens`` [N, D], rotations [1, N, 2d]."""
    qkv = F.linear(tokens, attn.qkv.weight, attn.qkv.bias)
    q, k, v = qkv.reshape(len(tokens), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    q, k = (apply_rot_embed_cat(one, rope, half=attn.rotate_half) for one in (q, k))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return attn.proj((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))


def looped(adapter, image, rope):
    """The adapter's output for one image from a loop over windows; ``rope`` [1, h, w, 2d]."""
    vit, size = adapter.vit, adapter.window_size
    grid = tuple(-(-side // adapter.patch_size) for side in image.shape[-2:])
    cells = vit.patch_embed(image).reshape(*grid, -1)
    no_rotation = torch.cat([torch.zeros(1), torch.ones(1)]).repeat_interleave(rope.shape[-1] // 2)
    for index, block in enumerate(vit.blocks):
        normed = block.norm1(cells)
        branch = torch.zeros_like(cells)
        if index in adapter.global_blocks:
            branch = attention(block.attn, normed.flatten(0, 1), rope.flatten(1, 2)).reshape_as(cells)
        else:
            for top in range(0, grid[0], size):
                for left in range(0, grid[1], size):
                    here = (slice(top, top + size), slice(left, left + size))
                    inside = normed[here]
                    shape = inside.shape
                    space = (0, 0, 0, size - shape[1], 0, size - shape[0])
                    turns = no_rotation.repeat(1, size, size, 1)
                    turns[:, : shape[0], : shape[1]] = rope[:, here[0], here[1]]
                    result = attention(block.attn, F.pad(inside, space).flatten(0, 1), turns.flatten(1, 2))
                    branch[here] = result.reshape(size, size, -1)[: shape[0], : shape[1]]
        cells = cells + block.gamma_1 * branch
        cells = cells + block.gamma_2 * block.mlp(block.norm2(cells))
    return cells.permute(2, 0, 1)


@pytest.mark.parametrize("size", [(48, 32), (40, 56)])
def test_rotations_in_windows(size):
    adapter = TimmViT("vit_small_patch16_dinov3", **SMALL, window_size=2, global_blocks=(1, 3)).eval()
    generator = torch.Generator().manual_seed(1)
    image, grid = torch.randn(2, 3, *size), tuple(side // 8 for side in size)
    rope = adapter.vit.rope.get_embed(shape=grid).unflatten(0, grid)[None]
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        expected = torch.stack([looped(adapter, image[i : i + 1], rope) for i in range(2)])
        torch.testing.assert_close(adapter(image)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arch", "why"),
    [("beitv2_base_patch16_224", "blocks of"), ("vit_small_patch16_rope_mixed_224", "rotations of its own")],
)
def test_windows_are_refused_where_each_block_has_positions_of_its_own(arch, why):
    with pytest.raises(ValueError, match=f"window_size=2 is not supported .*{why}"):
        TimmViT(arch, **SMALL, window_size=2)


@pytest.mark.parametrize("size", [(48, 48), (40, 56)])
def test_stochastic_depth_drops_whole_images(size):
    adapter = TimmViT("vit_tiny_patch16_224", **SMALL, window_size=2, global_blocks=(), drop_path_rate=1.0).train()
    block = adapter.vit.blocks[3]
    block.drop_path1.drop_prob, block.drop_path2.drop_prob = 0.5, 0.0
    before = {}
    block.norm1.register_forward_hook(lambda module, inputs, output: before.update(x=inputs[0]))
    block.norm2.register_forward_hook(lambda module, inputs, output: before.update(y=inputs[0]))
    torch.manual_seed(0)
    adapter(torch.randn(16, 3, *size))
    same = (before["x"] == before["y"]).flatten(1)
    dropped = same.all(1)
    assert 0 < dropped.sum() < 16 and not same[~dropped].all(1).any()
    assert same[~dropped].float().mean() < 0.01
    again = TimmViT("vit_tiny_patch16_224", **SMALL, window_size=2, global_blocks=(), drop_path_rate=0.5).train()
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(again(torch.ones(4, 3, *size))[0])
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(depth=12), (2, 5, 8, 11)),  # the ends of the quarters
        (dict(depth=12, window_size=0), ()),
        (dict(depth=12, global_blocks=[]), ()),
        (dict(), (1, 3, 5, 7)),
        (dict(out_indices=(3,)), (0, 1, 2, 3)),  # of the blocks that are kept
        (dict(out_indices=(3,), global_blocks=(-1,)), (3,)),
    ],
)
def test_blocks_with_global_attention(options, expected):
    usual = dict(embed_dim=48, depth=8, num_heads=3, window_size=7, out_indices=(-1,))
    assert TimmViT("vit_tiny_patch16_224", **usual | options).global_blocks == expected
