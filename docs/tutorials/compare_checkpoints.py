# %% [markdown]
# # Compare checkpoints
#
# Three files of three projects on one card: one of ours, one in the layout of DINO, one in that of DINOv2. This takes
# about two minutes of one CPU core.
#
# **All weights but ours are random in this tutorial**, because it downloads nothing. It shows how files are
# recognised, loaded and compared. Put the files that you have in their place: `dino_deitsmall16_pretrain.pth`,
# `dinov2_vits14_pretrain.pth`, or a name such as `timm://vit_small_patch14_dinov2.lvd142m`.

# %%
from pathlib import Path

import timm
import torch

import mst_transfer
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data

make_sample_data("data/sample", SampleDataRequest(num_photos=1, num_train=12, num_val=8))
torch.manual_seed(0)

# %% [markdown]
# ## Three files
#
# Ours comes with this project: 25 epochs of MST on 8,000 photographs (`mst zoo`).

# %%
ours = "zoo://mst_nano"

# %% [markdown]
# DINO's training checkpoint holds student and teacher; names begin with `module.backbone.` and `backbone.`.

# %%
student, teacher = (timm.create_model("vit_small_patch16_224", num_classes=0, depth=2) for _ in range(2))
torch.save(
    {
        "student": {f"module.backbone.{name}": value for name, value in student.state_dict().items()},
        "teacher": {f"backbone.{name}": value for name, value in teacher.state_dict().items()},
        "epoch": 100,
    },
    "dino.pth",
)

# %% [markdown]
# DINOv2 as timm has it: patches of 14 pixels, LayerScale.

# %%
dinov2 = timm.create_model("vit_small_patch14_dinov2", num_classes=0, depth=2, img_size=112)
torch.save(dinov2.state_dict(), "dinov2.pth")

# %% [markdown]
# ## What are they?
#
# Nobody says which project a file is of: its tensors do. A load covers the whole backbone, or raises.

# %%
for path in (ours, "dino.pth", "dinov2.pth"):
    model, report = mst_transfer.load_backbone(path)
    print(f"{path}: {type(model).__name__}, {model.embed_dim} wide, patches of {model.patch_embed.patch_size[0]} px")
    print(report.table(), end="\n\n")

# %% [markdown]
# A file that lacks a tensor is refused, and the message names it.

# %%
broken = dinov2.state_dict()
del broken["blocks.1.attn.qkv.weight"]
torch.save(broken, "broken.pth")
try:
    mst_transfer.load_backbone("broken.pth")
except ValueError as error:
    print(error)

# %% [markdown]
# ## One card
#
# Patches of 14 and of 16 px do not divide the same sides: the card takes sides that all of them divide, so that each
# checkpoint sees the same pixels, in its own normalisation.

# %%
labels = Path("data/sample/coco/annotations")
card = mst_transfer.evaluate(
    [f"ours={ours}", "dino=dino.pth", "dinov2=dinov2.pth", "random"],
    "card",
    coco=[str(labels / "instances_train.json"), str(labels / "instances_val.json")],
    labels=["4"],
    seeds=[0, 1, 2],
)
for row in card["rows"]:
    if row["protocol"] == "dense_knn":
        print(f"{row['checkpoint']:8} {row['metric']} {row['value']:5.1f}")

# %% [markdown]
# Every pair gets an interval. Between random weights no difference should be found; with four labelled scenes and
# three seeds not every true one is.

# %%
for difference in card["differences"]:
    if difference["primary"]:
        print(f"{difference['a']} against {difference['b']}: {difference['verdict']}")

# %% [markdown]
# Next: [which files are read](../checkpoints.md), [how a difference is told from chance](../card_statistics.md).
