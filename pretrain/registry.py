"""Child registries of mmengine's in scope ``pretrain``: ``type='pretrain.MST'`` needs no ``custom_imports``."""

from mmengine.registry import (
    DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS,
)
from mmengine.registry import (
    DATASETS as MMENGINE_DATASETS,
)
from mmengine.registry import (
    HOOKS as MMENGINE_HOOKS,
)
from mmengine.registry import (
    LOOPS as MMENGINE_LOOPS,
)
from mmengine.registry import (
    MODELS as MMENGINE_MODELS,
)
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
)
from mmengine.registry import (
    OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS,
)
from mmengine.registry import (
    Registry,
)

SCOPE = "pretrain"

DATASETS = Registry("dataset", parent=MMENGINE_DATASETS, scope=SCOPE, locations=["pretrain.data.dataset"])
DATA_SAMPLERS = Registry(
    "data sampler", parent=MMENGINE_DATA_SAMPLERS, scope=SCOPE, locations=["pretrain.data.sampler"]
)
MODELS = Registry("model", parent=MMENGINE_MODELS, scope=SCOPE, locations=["pretrain.model"])
HOOKS = Registry(
    "hook",
    parent=MMENGINE_HOOKS,
    scope=SCOPE,
    locations=["pretrain.run.hooks", "pretrain.run.unreadable_images_hook", "pretrain.run.evaluation_hooks"],
)
LOOPS = Registry("loop", parent=MMENGINE_LOOPS, scope=SCOPE, locations=["pretrain.run.loop"])
OPTIM_WRAPPERS = Registry(
    "optimizer wrapper", parent=MMENGINE_OPTIM_WRAPPERS, scope=SCOPE, locations=["pretrain.run.optim"]
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=["pretrain.run.optim"],
)
