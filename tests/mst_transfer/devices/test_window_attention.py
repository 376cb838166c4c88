"""Window attention in one kernel equals timm's, with gradients and without, and makes its masks once."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock

from mst_transfer.devices import window_attention
from mst_transfer.devices.window_attention import attend_in_windows


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("shift", [0, 2])
def test_attention_equals_timms(shift: int, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = SwinTransformerBlock(16, (8, 12), num_heads=2, window_size=4, shift_size=shift).double()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    x = torch.randn(2, 8, 12, 16, dtype=torch.double, requires_grad=True)
    if fused:  # as on CUDA
        monkeypatch.setattr(window_attention, "_needs_gradient", lambda *_: False)
    results = []
    for attention in (lambda: block._attn(x), lambda: attend_in_windows(block.attn, x, block.shift_size)):
        out = attention()
        results.append([out, *torch.autograd.grad(out.tanh().sum(), [x, *block.attn.parameters()])])
    torch.testing.assert_close(*results)
    masks = [window_attention._mask((4, 4), 0, 2, x.device, x.dtype) for _ in range(2)]
    assert masks[0] is masks[1]
