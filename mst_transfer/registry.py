"""Child registries of mmengine's in scope ``mst_transfer``.

mmengine imports ``<scope>.registry`` when it meets a type such as ``mst_transfer.TimmViT``, and then the
modules in ``locations``: no ``custom_imports`` are needed, whichever project the config belongs to.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

SCOPE = "mst_transfer"

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=[f"mst_transfer.models.{room}" for room in ("backbones", "necks", "decode_heads", "segmentors")],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=["mst_transfer.engine.layer_decay"],
)
DATASETS = Registry(
    "dataset",
    parent=MMENGINE_DATASETS,
    scope=SCOPE,
    locations=[f"mst_transfer.datasets.{room}" for room in ("cityscapes", "mask_pairs")],
)
TRANSFORMS = Registry(
    "transform", parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=["mst_transfer.datasets.load_image"]
)
HOOKS = Registry(
    "hook",
    parent=MMENGINE_HOOKS,
    scope=SCOPE,
    locations=["mst_transfer.engine.checkpoints"],
)
METRICS = Registry("metric", parent=MMENGINE_METRICS, scope=SCOPE, locations=["mst_transfer.evaluation"])
OPTIM_WRAPPERS = Registry(
    "optimizer wrapper", parent=MMENGINE_OPTIM_WRAPPERS, scope=SCOPE, locations=["mst_transfer.engine.nonfinite"]
)
LOOPS = Registry("loop", parent=MMENGINE_LOOPS, scope=SCOPE, locations=["mst_transfer.engine.resume.loops"])
