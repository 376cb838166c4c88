"""mmseg's encoder-decoder with sliding windows in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.models.segmentors.padded import PaddedEncoderDecoder
from mst_transfer.models.segmentors.windows import coverage, window_starts
from mst_transfer.registry import MODELS


@MODELS.register_module()
class SlideEncoderDecoder(PaddedEncoderDecoder):
    """``EncoderDecoder`` of mmseg with another sliding inference: the same windows, logits and predictions.

    Images and windows whose sides are no multiples of the backbone's patches are padded, in training too, where mmseg
    stretches the logits (:class:`~mst_transfer.models.segmentors.padded.PaddedEncoderDecoder`).

    Logits are added in place where their window lies (mmseg pads each window's to the size of the image), divided
    in place, and reach the prediction without another copy unless the image was resized, padded or mirrored. So
    one set of full-size logits exists instead of three. On the CPU matrix products take the quicker library.

    Beside mmseg's ``mode="slide"``, ``crop_size`` and ``stride`` these may stand in ``test_cfg``:

    - ``windows_per_step`` (default 1): how many windows go through the model at once, if there are so many. More
      use a device better and take more memory; BatchNorm does not mix them, as it evaluates.
    - ``accumulate_on`` (default None, where the image is): a device such as ``"cpu"`` for the full-size logits, for
      images whose logits do not fit beside the model.

    Raises:
        ValueError: if one of the two is not allowed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self.test_cfg or {}
        if not isinstance(number := options.get("windows_per_step", 1), int) or number < 1:
            raise ValueError(f"test_cfg.windows_per_step={number!r}: a number of windows of at least 1 is needed")
        if (device := options.get("accumulate_on")) is not None:
            try:
                torch.device(device)
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"test_cfg.accumulate_on={device!r}: no device, such as 'cpu' ({error})") from error

    def slide_inference(self, inputs: torch.Tensor, batch_img_metas: list[dict]) -> torch.Tensor:
        """Mean of the logits of all windows that see a pixel.

        Args:
            inputs: Images, ``[B, 3, H, W]``. A side that is shorter than ``crop_size`` is taken whole.
            batch_img_metas: Meta information of each.

        Returns:
            Logits, ``[B, out_channels, H, W]``, on ``accumulate_on`` or where the images are.
        """
        batch, _, *image_size = inputs.shape
        size = torch.Size(min(*sides) for sides in zip(self.test_cfg.crop_size, image_size, strict=True))
        starts = [window_starts(*sides) for sides in zip(image_size, size, self.test_cfg.stride, strict=True)]
        corners = [(top, left) for top in starts[0] for left in starts[1]]
        logits = torch.zeros(
            batch,
            self.out_channels,
            *image_size,
            dtype=inputs.dtype,
            device=self.test_cfg.get("accumulate_on") or inputs.device,
        )
        metas = [{**meta, "img_shape": size} for meta in batch_img_metas]
        step = self.test_cfg.get("windows_per_step", 1)
        for first in range(0, len(corners), step):
            chosen = corners[first : first + step]
            windows = torch.cat([_window(inputs, corner, size) for corner in chosen])  # [n * B, 3, h, w]
            with quick_products(inputs.device):
                found = self.encode_decode(windows, metas * len(chosen)).to(logits.device)
            for corner, window_logits in zip(chosen, found.split(batch), strict=True):
                _window(logits, corner, size).add_(window_logits)
        counts = coverage(starts, image_size, size).to(logits)
        return logits.div_(counts)

    def postprocess_result(
        self, seg_logits: torch.Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> Sequence[SegDataSample]:
        """Adds ``seg_logits`` and ``pred_sem_seg`` to the samples, as mmseg does.

        Args:
            seg_logits: ``[B, out_channels, H, W]``.
            data_samples: The images' samples, or None for new ones.
        """
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
