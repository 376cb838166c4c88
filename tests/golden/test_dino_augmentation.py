"""The crops' plans are distributed as the draws of DINO's ``DataAugmentationDINO`` at its defaults.

Both samples hold 5,000 crops of each kind from a 500 x 375 image; the golden ones were recorded while DINO's transforms
ran. Two samples of one distribution: a Kolmogorov-Smirnov distance above 1.95 * sqrt(1/n + 1/m) has a probability of
0.1 %, a difference of rates beyond 4 standard errors one of 0.006 %. Our draws are fixed by a seed.
"""

import math

import dino_inputs as inputs
import numpy as np
import pytest
from dino_augmentation import FACTORS, OPERATIONS, STRENGTHS, place
from golden_files import read

from pretrain.data.augment import CropPlan, MultiCropOptions, draw_crops

GOLDEN = read("dino_augmentation.safetensors")[0]


def drawn(plan: CropPlan) -> dict[str, float]:
    """A plan in the words of the golden record."""
    figures = {"size": plan.size, **place(plan.top, plan.left, plan.height, plan.width), **dict(plan.jitter)}
    applied = (plan.flip, plan.jitter, plan.grayscale, plan.blur_sigma > 0, plan.solarize_threshold == 128)
    figures.update({name: 1.0 for name, done in zip(OPERATIONS, applied, strict=True) if done})
    if plan.blur_sigma > 0:
        figures["sigma"] = plan.blur_sigma
    return figures


@pytest.fixture(scope="module")
def ours() -> dict[str, list[dict[str, float]]]:
    options = MultiCropOptions(num_local_crops=1)
    samples = [draw_crops(options, *inputs.IMAGE_SIZE, seed=11, epoch=2, index=i) for i in range(inputs.NUM_DRAWS)]
    return {kind: [drawn(sample[i]) for sample in samples] for i, kind in enumerate(inputs.CROP_KINDS)}


@pytest.mark.parametrize("kind", inputs.CROP_KINDS)
def test_rates(ours, kind):
    assert sorted({crop["size"] for crop in ours[kind]}) == GOLDEN[f"sizes/{kind}"].tolist()
    for name, theirs in zip(OPERATIONS, GOLDEN[f"rates/{kind}"].tolist(), strict=True):
        rate = float(np.mean([name in crop for crop in ours[kind]]))
        pooled = (rate + theirs) / 2
        error = math.sqrt(pooled * (1 - pooled) * 2 / inputs.NUM_DRAWS)
        print(f"| {name} of {kind}: {rate:.3f}, DINO {theirs:.3f} | 4 standard errors | {abs(rate - theirs):.1e} |")
        assert abs(rate - theirs) <= 4 * error, (name, rate, theirs)


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("kind", inputs.CROP_KINDS)
def test_strengths(ours, kind, name):
    """The distance is taken at the golden quantiles; the box's sides are whole pixels, hence the ties."""
    values = np.sort([crop[name] for crop in ours[kind] if name in crop])
    quantiles = GOLDEN[f"quantiles/{kind}/{name}"].numpy()
    count = GOLDEN[f"counts/{kind}/{name}"].item()
    below = np.searchsorted(values, quantiles - 1e-9) / len(values)
    up_to = np.searchsorted(values, quantiles + 1e-9, side="right") / len(values)
    distance = np.maximum(below - inputs.QUANTILES, inputs.QUANTILES - up_to).max()
    tolerance = 1.95 * math.sqrt(1 / len(values) + 1 / count)
    print(f"| {name} of {kind}: Kolmogorov-Smirnov distance | {tolerance:.3f} | {distance:.3f} |")
    assert distance <= tolerance
    if name in ("area", "aspect", *FACTORS, "sigma"):  # the ends of the range are reached, not passed
        low, high = quantiles[0], quantiles[-1]
        slack = 0.02 * (high - low) * max(1.0, math.sqrt(500 / len(values)))
        assert abs(values[0] - low) < slack and abs(values[-1] - high) < slack
