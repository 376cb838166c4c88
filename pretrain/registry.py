"""Child registries of mmengine's in scope ``pretrain``: ``type='pretrain.MST'`` needs no ``custom_imports``."""

from mmengine import registry
from mmengine.registry import Registry


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope="pretrain", locations=[*locations])


DATASETS = _child(registry.DATASETS, "pretrain.data.dataset")
DATA_SAMPLERS = _child(registry.DATA_SAMPLERS, "pretrain.data.sampler")
MODELS = _child(registry.MODELS, "pretrain.model")
HOOKS = _child(registry.HOOKS, "pretrain.run.hooks", "pretrain.run.evaluation_hooks", "pretrain.run.dense_probe_hook")
LOOPS = _child(registry.LOOPS, "pretrain.run.loop")
OPTIM_WRAPPERS = _child(registry.OPTIM_WRAPPERS, "pretrain.run.optim")
OPTIM_WRAPPER_CONSTRUCTORS = _child(registry.OPTIM_WRAPPER_CONSTRUCTORS, "pretrain.run.optim")
