"""``mst_transfer.LN2d``: LayerNorm over the channels of each cell of a map [B, C, H, W], for the heads of ViTDet.

mmcv's layers build it from ``norm_cfg=dict(type="mst_transfer.LN2d", eps=1e-6)``; without eps theirs is 1e-5.
"""

from timm.layers import LayerNorm2d

from mst_transfer.registry import MODELS

MODELS.register_module(name="LN2d", module=LayerNorm2d)
