"""mmseg's encoder-decoder for images of any size: maps of whole cells are never stretched."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch


class PaddedEncoderDecoder(EncoderDecoder):
    """``EncoderDecoder`` of mmseg whose logits lie where the backbone's cells lie.

    A backbone of patches pads an image on the right and below to whole patches, so that its maps cover more than the
    image; mmseg resizes the logits of all of them to the image's size, by which they are stretched: at 360 rows and
    patches of 16 by up to 8 pixels. Here images, or windows of them, are padded with zeros before they reach the
    backbone, as often as its ``size_divisor`` says (none: never), logits get the padded size, and the padding is cut
    off. In training the label maps are padded with the value to be ignored.
    """

    @property
    def size_divisor(self) -> int:
        """Sides in pixels of which every map of the backbone covers multiples exactly."""
        return int(getattr(self.backbone, "size_divisor", 1))

    def encode_decode(self, inputs: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        """Logits ``[B, out_channels, H, W]`` of images or windows ``[B, 3, H, W]``."""
        height, width = inputs.shape[2:]
        padded = F.pad(inputs, (0, -width % self.size_divisor, 0, -height % self.size_divisor))
        size = padded.shape[2:]
        metas = [{**meta, "img_shape": size, "pad_shape": size} for meta in batch_img_metas]
        return super().encode_decode(padded, metas)[:, :, :height, :width]

    def loss(self, inputs: torch.Tensor, data_samples: list[SegDataSample]) -> dict[str, torch.Tensor]:
        """Losses of images ``[B, 3, H, W]``, the samples of which stay as they are."""
        if any(side % self.size_divisor for side in inputs.shape[2:]):
            samples = [sample.detach() for sample in data_samples]  # other containers, the same tensors
            options = dict(size_divisor=self.size_divisor, seg_pad_val=self.decode_head.ignore_index)
            inputs, data_samples = stack_batch(list(inputs), samples, **options)
        return super().loss(inputs, data_samples)
