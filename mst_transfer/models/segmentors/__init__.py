"""Segmentors. Importing this registers them."""

from mst_transfer.models.segmentors.slide import SlideEncoderDecoder

__all__ = ["SlideEncoderDecoder"]
