"""mmseg's encoder-decoder for images of any size: logits lie where the cells lie, sliding windows in bounded memory."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.registry import MODELS


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


@MODELS.register_module()
class SlideEncoderDecoder(PaddedEncoderDecoder):
    """``EncoderDecoder`` of mmseg with another sliding inference: the same windows, logits and predictions.

    Images and windows whose sides are no multiples of the backbone's patches are padded, in training too, where mmseg
    stretches the logits (``PaddedEncoderDecoder``).

    Logits are added in place where their window lies (mmseg pads each window's to the size of the image), divided
    in place, and reach the prediction without another copy unless the image was resized, padded or mirrored. So
    one set of full-size logits exists instead of three. On the CPU matrix products take the quicker library.

    Beside mmseg's ``mode="slide"``, ``crop_size`` and ``stride``, ``accumulate_on`` may stand in ``test_cfg`` (default
    None, where the image is): a device such as ``"cpu"`` for the full-size logits, for images whose logits do not fit
    beside the model.

    Raises:
        ValueError: if that is no device.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        device = (self.test_cfg or {}).get("accumulate_on")
        try:
            torch.device(device or "cpu")
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"test_cfg.accumulate_on={device!r}: no device ({error})") from error

    def slide_inference(self, inputs: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        """Mean of the logits of all windows that see a pixel, ``[B, out_channels, H, W]``, of images ``[B, 3, H, W]``.

        A side that is shorter than ``crop_size`` is taken whole.
        """
        batch, _, *image_size = inputs.shape
        size = torch.Size(min(*sides) for sides in zip(self.test_cfg.crop_size, image_size, strict=True))
        starts = [window_starts(*sides) for sides in zip(image_size, size, self.test_cfg.stride, strict=True)]
        if any(b - a > window for firsts, window in zip(starts, size, strict=True) for a, b in pairwise(firsts)):
            raise ValueError(f"windows of {tuple(size)} leave gaps: test_cfg.stride must not exceed test_cfg.crop_size")
        corners = [(top, left) for top in starts[0] for left in starts[1]]
        device = self.test_cfg.get("accumulate_on") or inputs.device
        logits = torch.zeros(batch, self.out_channels, *image_size, dtype=inputs.dtype, device=device)
        counts = logits.new_zeros(1, 1, *image_size)
        metas = [{**meta, "img_shape": size} for meta in batch_img_metas]
        for corner in corners:
            with quick_products(inputs.device):
                found = self.encode_decode(_window(inputs, corner, size), metas)
            _window(logits, corner, size).add_(found.to(logits.device))
            _window(counts, corner, size).add_(1)
        return logits.div_(counts)

    def postprocess_result(
        self, seg_logits: torch.Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> Sequence[SegDataSample]:
        """Adds ``seg_logits`` ``[B, out_channels, H, W]`` and ``pred_sem_seg`` to the samples, as mmseg does."""
        if data_samples is None:
            data_samples = [SegDataSample() for _ in seg_logits]
        elif any(_changes(sample.metainfo, seg_logits.shape[2:]) for sample in data_samples):
            return super().postprocess_result(seg_logits, data_samples)
        for sample, logits in zip(data_samples, seg_logits, strict=True):
            if len(logits) > 1:
                predicted = _classes(logits)
            else:
                logits = logits.sigmoid()
                predicted = (logits > self.decode_head.threshold).to(logits)
            sample.set_data({"seg_logits": PixelData(data=logits), "pred_sem_seg": PixelData(data=predicted)})
        return data_samples


def _window(maps: torch.Tensor, corner: tuple[int, int], size: torch.Size) -> torch.Tensor:
    """The part of ``[B, C, H, W]`` of a size with its upper left corner at (row, column)."""
    top, left = corner
    return maps[:, :, top : top + size[0], left : left + size[1]]


def _changes(meta: dict[str, Any], size: torch.Size) -> bool:
    """Whether logits of a size must be cut, mirrored or resized to become those of the original image."""
    padding = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    return any(padding) or bool(meta.get("flip")) or tuple(meta["ori_shape"]) != tuple(size)


def _classes(logits: torch.Tensor) -> torch.Tensor:
    """Class of the largest of ``[C, H, W]``, the first of equal ones, as ``[1, H, W]``."""
    if logits.device.type == "cpu":  # the same, but some three times quicker there
        return logits.max(dim=0, keepdim=True).indices
    return logits.argmax(dim=0, keepdim=True)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along a side: ``stride`` apart, the last one moved back to end with the side."""
    number = -(-(length - window) // stride) + 1
    return [min(index * stride, length - window) for index in range(number)]
