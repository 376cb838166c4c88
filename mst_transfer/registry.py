"""Child registries of mmengine's in scope ``mst_transfer``.

mmengine imports ``<scope>.registry`` when it meets a type such as ``mst_transfer.TimmViT``, and then the
modules in ``locations``: no ``custom_imports`` are needed, whichever project the config belongs to.
"""

from mmengine import registry
from mmengine.registry import Registry


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope="mst_transfer", locations=[*locations])


MODELS = _child(
    registry.MODELS, *(f"mst_transfer.models.{room}" for room in ("backbones", "necks", "decode_heads", "segmentors"))
)
DATASETS = _child(registry.DATASETS, "mst_transfer.datasets.cityscapes", "mst_transfer.datasets.mask_pairs")
TRANSFORMS = _child(registry.TRANSFORMS, "mst_transfer.datasets.load_image")
HOOKS = _child(registry.HOOKS, "mst_transfer.engine.checkpoints")
METRICS = _child(registry.METRICS, "mst_transfer.evaluation")
OPTIM_WRAPPERS = _child(registry.OPTIM_WRAPPERS, "mst_transfer.engine.nonfinite")
OPTIM_WRAPPER_CONSTRUCTORS = _child(registry.OPTIM_WRAPPER_CONSTRUCTORS, "mst_transfer.engine.layer_decay")
LOOPS = _child(registry.LOOPS, "mst_transfer.engine.resume.loops")
