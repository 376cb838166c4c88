"""Testing on several sizes of each image and on their mirror images, with the predictions averaged.

``tta_pipeline`` and ``tta_model`` of the config say how, as in mmseg: ``SegTTAModel`` averages the class probabilities.
"""

import copy
from typing import Any


def with_augmentation(cfg: Any) -> Any:
    """A copy of a config whose test set comes augmented and whose model averages.

    Args:
        cfg: An mmengine ``Config`` of a segmentor.

    Raises:
        ValueError: The config has no ``tta_pipeline`` or ``tta_model``, or is a detector's.
    """
    if cfg.get("default_scope") == "mmdet":
        raise ValueError(
            "--tta: mmdet's DetTTAModel merges boxes only, and the masks would be lost. Next step: leave --tta out; "
            "detectors are tested on one size"
        )
    missing = [name for name in ("tta_pipeline", "tta_model") if not cfg.get(name)]
    if missing:
        raise ValueError(
            f"--tta: the config has no {' and no '.join(missing)}. Next step: inherit mmseg's "
            "_base_/default_runtime.py and one of its _base_/datasets, or give both"
        )
    cfg = copy.deepcopy(cfg)
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    return cfg
