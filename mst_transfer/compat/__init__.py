"""What lets the released MM packages run on today's torch. Nothing else in this project patches them.

- ``ops``: mmcv's compiled operators from torchvision, only where mmcv has none of its own.
- ``config_paths``: ``_base_ = 'mst_transfer::det_configs/...'``, and external bases without
  ``pkg_resources``.
- ``serialization``: safe loading and atomic writing of mmengine checkpoints.
- ``launch``: process groups, on GPUs and on the CPU.
- ``config_check``: misspelt config keys are refused.
"""

from mst_transfer.compat import import_hooks


def install() -> None:
    """Registers what has to happen when mmcv or mmengine is imported. Idempotent; imports neither.

    A module that was already imported is adapted at once.
    """
    import_hooks.provide("mmcv._ext", "mst_transfer.compat.ops")
    import_hooks.on_import("mmengine.config.config", "mst_transfer.compat.config_paths")
    import_hooks.on_import("mmengine.runner.checkpoint", "mst_transfer.compat.serialization")
