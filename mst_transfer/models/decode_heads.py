"""mmseg's SETR head, classifying before its last up-sampling."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads import SETRUPHead as MMSegSETRUPHead

from mst_transfer.registry import MODELS


@MODELS.register_module()
class SETRUPHead(MMSegSETRUPHead):
    """``SETRUPHead`` of mmseg: same options, parameters and logits (to rounding), less time and memory.

    A classifier of single pixels and a bilinear up-sampling are both linear, and the weights of an up-sampling sum
    to one: they commute. So the last up-sampling enlarges ``num_classes`` maps instead of ``channels`` (256): at
    768x768 that is 45 MB instead of 604 MB a head and image, which training would keep for the gradient. On the CPU
    the convolutions run channels-last, as the tokens come, and in evaluation BatchNorm is folded into them. Where
    dropout acts between the two, mmseg's order stays.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for convolution, _ in self.up_convs:
            convolution.turn_on_efficient_conv_bn_eval()

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits ``[B, num_classes, H, W]`` from features, of which ``in_index`` chooses ``[B, C, h, w]``."""
        if self.dropout is not None and self.training:
            return super().forward(inputs)
        x = self._transform_inputs(inputs)
        batch, channels, height, width = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))  # [B, h * w, C]
        x = tokens.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        if x.device.type != "cpu":
            x = x.contiguous()
        for convolution, upsampling in list(self.up_convs)[:-1]:
            x = upsampling(convolution(x))
        convolution, upsampling = self.up_convs[-1]
        return upsampling(self.conv_seg(convolution(x)))
