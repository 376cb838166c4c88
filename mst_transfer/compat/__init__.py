"""Lets the released MM packages run on today's torch. Nothing else in this project patches them.

- ``ops``: mmcv's compiled operators from torchvision, only where mmcv has none of its own.
- ``config_paths``: ``_base_ = 'mst_transfer::det_configs/...'``, and external bases without
  ``pkg_resources``.
- ``untrusted_files``: pickles, YAML and arrays that would run code are refused wherever the libraries read them;
  so are types that no registry holds, where a config is only looked at.
- ``serialization``: safe loading and atomic writing of mmengine checkpoints.
"""

from mst_transfer.compat import import_hooks, untrusted_files


def install() -> None:
    """Registers what has to happen when mmcv or mmengine is imported. Idempotent; imports neither.

    A module that was already imported is adapted at once.
    """
    import_hooks.provide("mmcv._ext", "mst_transfer.compat.ops")
    import_hooks.on_import("mmcv.ops", "mst_transfer.compat.ops")
    import_hooks.on_import("mmengine.config.config", "mst_transfer.compat.config_paths")
    import_hooks.on_import("mmengine.runner.checkpoint", "mst_transfer.compat.serialization")
    for module in untrusted_files.ADAPTED_MODULES:
        import_hooks.on_import(module, "mst_transfer.compat.untrusted_files")
