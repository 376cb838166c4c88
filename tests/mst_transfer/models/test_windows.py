"""Windows against a plain loop over them: with rotations, relative biases and stochastic depth."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat, resize_rel_pos_bias_table
from timm.models.beit import gen_relative_position_index

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


def attention(attn, tokens, rope=None, bias=None):
    """Attention of one image, written out; ``tokens`` [N, D], rotations [H, N, 2d] or None, bias [H, N, N] or None."""
    qkv_bias = attn.qkv.bias
    if getattr(attn, "q_bias", None) is not None:
        qkv_bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
    qkv = F.linear(tokens, attn.qkv.weight, qkv_bias)
    q, k, v = qkv.reshape(len(tokens), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    if rope is not None:
        q, k = (apply_rot_embed_cat(one, rope, half=attn.rotate_half) for one in (q, k))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores if bias is None else scores + bias
    return attn.proj((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))


def looped(adapter, image, rope=None, tables=None):
    """The adapter's output for one image from a loop over windows; ``rope`` [H, h, w, 2d], or a list of one a block."""
    vit, size = adapter.vit, adapter.window_size
    grid = tuple(-(-side // adapter.patch_size) for side in image.shape[-2:])
    cells = vit.patch_embed(image).reshape(*grid, -1)
    no_rotation = torch.cat([torch.zeros(1), torch.ones(1)]).repeat_interleave(
        cells.shape[-1] // vit.blocks[0].attn.num_heads
    )
    for index, block in enumerate(vit.blocks):
        angles = None if rope is None else (rope[index] if isinstance(rope, list) else rope)
        normed = block.norm1(cells)
        branch = torch.zeros_like(cells)
        if index in adapter.global_blocks:
            turns = None if angles is None else angles.flatten(1, 2)
            bias = tables[0](block.attn) if tables else None
            branch = attention(block.attn, normed.flatten(0, 1), turns, bias).reshape_as(cells)
        else:
            for top in range(0, grid[0], size):
                for left in range(0, grid[1], size):
                    here = (slice(top, top + size), slice(left, left + size))
                    inside = normed[here]
                    shape = inside.shape
                    space = (0, 0, 0, size - shape[1], 0, size - shape[0])
                    turns = None
                    if angles is not None:
                        turns = no_rotation.repeat(len(angles), size, size, 1)
                        turns[:, : shape[0], : shape[1]] = angles[:, here[0], here[1]]
                        turns = turns.flatten(1, 2)
                    bias = tables[1](block.attn) if tables else None
                    result = attention(block.attn, F.pad(inside, space).flatten(0, 1), turns, bias)
                    branch[here] = result.reshape(size, size, -1)[: shape[0], : shape[1]]
        gamma = [1.0 if scale is None else scale for scale in (block.gamma_1, block.gamma_2)]
        cells = cells + gamma[0] * branch
        cells = cells + gamma[1] * block.mlp(block.norm2(cells))
    return cells.permute(2, 0, 1)


def randomise(adapter):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in adapter.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (1 if "relative" in name else 0.2))


@pytest.mark.parametrize("size", [(48, 32), (40, 56)])
@pytest.mark.parametrize("arch", ["vit_small_patch16_dinov3", "vit_small_patch16_rope_mixed_224"])
def test_rotations_in_windows(arch, size):
    adapter = TimmViT(arch, **SMALL, window_size=2, global_blocks=(1, 3)).eval()
    randomise(adapter)
    image, grid = torch.randn(2, 3, *size), tuple(side // 8 for side in size)
    rope = adapter.vit.rope.get_embed(shape=grid)
    turns = [r.unflatten(1, grid) for r in rope] if rope.ndim == 4 else rope.unflatten(0, grid)[None]
    with torch.no_grad():
        expected = torch.stack([looped(adapter, image[i : i + 1], turns) for i in range(2)])
        torch.testing.assert_close(adapter(image)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(56, 56), (40, 48), (32, 64)])
def test_relative_biases_in_windows(size):
    """Tables of a 7×7 grid: of the grid itself and resampled by timm for windows of 4."""
    adapter = TimmViT("beitv2_base_patch16_224", **SMALL, window_size=4, global_blocks=(3,)).eval()
    randomise(adapter)

    def resized(attn, grid):
        count = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3
        table = resize_rel_pos_bias_table(attn.relative_position_bias_table, grid, (count, 3), (7, 7))
        return table[gen_relative_position_index(grid)].permute(2, 0, 1)[:, 1:, 1:]  # without the class token

    grid = tuple(side // 8 for side in size)
    biases = (lambda attn: resized(attn, grid), lambda attn: resized(attn, (4, 4)))
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = torch.stack([looped(adapter, image[i : i + 1], tables=biases) for i in range(2)])
        torch.testing.assert_close(adapter(image)[0], expected, atol=1e-4, rtol=1e-4)


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
