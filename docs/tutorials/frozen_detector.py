# %% [markdown]
# # A detector on a frozen backbone
#
# Mask R-CNN on a ViT whose blocks do not train, from 16 labelled images. This takes about a minute of one CPU core.
# The backbone comes with this project (`mst zoo`); the detector is trained for two epochs only, and finds little. With
# your own checkpoint and labels the same lines do the real thing.

# %%
from pathlib import Path

import mst_transfer
from mst_transfer.checkpoint import read_backbone
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data

make_sample_data("data/sample", SampleDataRequest(num_photos=1, num_train=16, num_val=4))
backbone = "zoo://mst_nano"

# %% [markdown]
# ## Train
#
# The recipe is a shipped config. Four options change it: the checkpoint, its architecture (`None`: what the file was
# made with), which blocks are frozen, and a short run. `coco` names your files; classes and the sizes of the heads
# come from them. Whatever would stop the run is said before it begins.

# %%
labels = Path("data/sample/coco/annotations")
files = [str(labels / "instances_train.json"), str(labels / "instances_val.json")]
options = {
    "model.backbone.checkpoint": backbone,
    "model.backbone.arch": None,
    "+model.backbone.frozen_stages": "all",  # +: the recipe does not have it
    "train_cfg.max_epochs": 2,
    "param_scheduler.0.end": 4,
}
trained = mst_transfer.train("det_configs/mst_maskrcnn_sample.py", work_dir="detector", coco=files, cfg_options=options)
for name in ("coco/bbox_mAP", "coco/segm_mAP"):
    print(f"{name}: {trained.metrics[name]:.3f}")

# %% [markdown]
# Was the backbone really frozen? Its blocks are still those of the file, bit for bit.

# %%
before, _ = read_backbone(backbone)
after, _ = read_backbone(trained.checkpoint)
blocks = [name for name in before if name.startswith("blocks.")]
same = [bool((before[name] == after[name]).all()) for name in blocks]
print(f"{sum(same)} of {len(blocks)} tensors of the blocks are unchanged")
assert all(same)

# %% [markdown]
# ## Predict
#
# `score=0` keeps every box, however unsure; a detector of your own takes 0.3.

# %%
done = mst_transfer.predict(trained.work_dir, "data/sample/coco/val", score=0.0)
print(f"{done.num_images} images, {done.num_objects} objects: {done.folder}")
print(sorted(path.name for path in (done.folder / "drawn").rglob("*.*")))

# %% [markdown]
# Next: [your own labels](../custom_data.md), [the detection recipes](../detection.md).
