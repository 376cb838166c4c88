"""Decode heads. Importing this registers them."""

from mst_transfer.models.decode_heads.setr_up import SETRUPHead

__all__ = ["SETRUPHead"]
