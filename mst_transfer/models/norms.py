"""Norms that mmcv's layers build from a ``norm_cfg``.

- ``mst_transfer.LN2d``: LayerNorm over the channels of each cell of a map [B, C, H, W], for the heads of ViTDet:
  ``norm_cfg=dict(type="mst_transfer.LN2d", eps=1e-6)``; without eps theirs is 1e-5.
- ``mst_transfer.GlooSyncBN``: what ``SyncBN`` becomes on several CPU processes.
"""

from timm.layers import LayerNorm2d

from mst_transfer.devices.cpu_processes import GlooSyncBatchNorm2d
from mst_transfer.registry import MODELS

MODELS.register_module(name="LN2d", module=LayerNorm2d)
MODELS.register_module(name="GlooSyncBN", module=GlooSyncBatchNorm2d)
