# %% [markdown]
# # From photos to a card
#
# Pre-train a backbone on photos, then ask what it is worth. This takes one or two minutes of one CPU core. A minute
# of pre-training teaches almost nothing: what you see here is the way, not a result.

# %% [markdown]
# ## Photos, and a few labels
#
# The package draws a small world: photos without labels, and scenes with boxes and masks in COCO's format. Take your
# own folder of photos instead, if you have one.

# %%
import json
from pathlib import Path

import mst_transfer
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data

make_sample_data("data/sample", SampleDataRequest(num_photos=64, num_train=16, num_val=12))
labels = Path("data/sample/coco/annotations")
train, val = str(labels / "instances_train.json"), str(labels / "instances_val.json")

# %% [markdown]
# ## Pre-train
#
# `pretrain` looks at the photos and at this machine, and plans the rest: network, views, batch, learning rate, number
# of prototypes. The plan is printed and stands in `mine/plan.py`. We ask for two epochs; leave `epochs` out, or give
# `minutes`, for a real run.

# %%
trained = mst_transfer.pretrain("data/sample/photos", "mine", epochs=2)
print(trained.checkpoint)

# %% [markdown]
# `mine/teacher.safetensors` is the backbone. It holds its architecture and normalisation, so that nothing needs to be
# said of it later.

# %%
model, report = mst_transfer.load_backbone(trained.checkpoint)
print(report.table())
print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")

# %% [markdown]
# ## Evaluate
#
# `evaluate` compares checkpoints on the same pixels, labels and seeds. `random` is the floor: the same architecture
# with random weights. Four labelled images are drawn three times.

# %%
card = mst_transfer.evaluate(
    [f"mine={trained.checkpoint}", "random"], "card", coco=[train, val], labels=["4"], seeds=[0, 1, 2]
)
for row in card["rows"]:
    low, high = row["ci95"]
    print(f"{row['checkpoint']:8} {row['protocol']:13} {row['metric']} {row['value']:5.1f} ({low:.1f} … {high:.1f})")

# %% [markdown]
# ## Look
#
# The verdict is a sentence. With two epochs and twelve validation images it will hardly be "better".

# %%
for difference in card["differences"]:
    if difference["primary"]:
        print(f"{difference['a']} against {difference['b']}: {difference['verdict']}")

# %% [markdown]
# `card/card.html` shows the rest on one page, which opens without a network: figures, classes, attention maps, jobs,
# and whether validation images are near duplicates of the photos. `card/card.json` holds the same for programs.

# %%
print(Path("card/card.html").resolve())
print(json.dumps(card["leakage"], indent=1)[:400])

# %% [markdown]
# Next: [all options of pre-training](../pretraining.md), [what the card measures](../card.md).
