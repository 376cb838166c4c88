import pytest
import torch

from mst_transfer.runs.counter_random import derive_key, uniform
from pretrain.attmask import build_mask_generator as build_masks
from pretrain.masking import attention_guided_mask


def brute_force(importance: list[float], num: int) -> list[bool]:
    """MST, section 3.2, with p = 1: one image at a time, by repeated selection of the smallest."""
    hidden = [False] * len(importance)
    for _ in range(len(importance) // num):
        smallest = min((value, i) for i, value in enumerate(importance) if not hidden[i])
        hidden[smallest[1]] = True
    return hidden


@pytest.mark.parametrize("num", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("num_patches", [1, 16, 49, 196])
def test_attention_mask_equals_brute_force(num, num_patches):
    importance = torch.rand(5, num_patches, generator=torch.Generator().manual_seed(num_patches))
    importance[1] = importance[1].round(decimals=1)  # ties
    importance[2] = 0.25  # nothing but ties
    mask = attention_guided_mask(importance, num, 1.0)
    assert mask.tolist() == [brute_force(row, num) for row in importance.tolist()]


def test_each_candidate_is_hidden_with_probability_p():
    importance = torch.rand(500, 64, generator=torch.Generator().manual_seed(2))
    candidates = attention_guided_mask(importance, 4, 1.0)
    assert (candidates.sum(dim=1) == 16).all()
    mask = build_masks(num=4, p=0.3, seed=0)(importance, torch.arange(500), 0, 1, 64)
    rate = mask[candidates].float().mean().item()
    assert abs(rate - 0.3) < 4 * (0.3 * 0.7 / 8000) ** 0.5
    assert mask[candidates].tolist() == (uniform(derive_key(0, 0, 0), torch.arange(500), 64) < 0.3)[candidates].tolist()


def test_random_mode_ignores_importance():
    generator = build_masks(mode="random", p=0.25, seed=3)
    assert not generator.needs_importance
    mask = generator(None, torch.arange(400), 5, 2, 100)
    assert mask.shape == (800, 100)
    assert abs(mask.float().mean().item() - 0.25) < 0.01
    assert not torch.equal(mask[:400], mask[400:])  # the two views draw apart


def test_draws_follow_the_sample_not_its_place_in_the_batch():
    generator = build_masks(mode="random", p=0.5, seed=3)
    whole = generator(None, torch.arange(8), 2, 1, 30)
    assert torch.equal(whole[[6, 1]], generator(None, torch.tensor([6, 1]), 2, 1, 30))
    assert not torch.equal(whole, generator(None, torch.arange(8), 3, 1, 30))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(mode="atention"), ["atention", "attention, random, none, attention_high, attention_hint"]),
        (dict(num=0), ["masking.num = 0", ">= 1"]),
        (dict(p=1.5), ["masking.p = 1.5", "[0, 1]"]),
        (dict(mode="random"), ["hides every patch", "p < 1"]),
        (dict(mode="attention_hint", ratio=1.2), ["masking.ratio = 1.2", "[0, 1]"]),
        (dict(mode="attention_hint", ratio=0.1, ratio_var=0.2), ["0.1 ± 0.2"]),
        (dict(mode="attention_hint", views=(2,)), ["masking.views = (2,)"]),
        (dict(mode="attention_hint", views=()), ["masking.views = ()"]),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as error:
        build_masks(**arguments)
    assert all(word in str(error.value) for word in words)


def importance_of(rows: int, num_patches: int) -> torch.Tensor:
    return torch.rand(rows, num_patches, generator=torch.Generator().manual_seed(5))


def test_attmask_hint_shows_some_of_the_most_attended():
    importance = importance_of(300, 196)
    options = dict(ratio=0.3, image_prob=1.0, show_max=0.1, seed=2)
    high = build_masks("attention_high", **options)(importance, torch.arange(300), 4, 1, 196)
    hint = build_masks("attention_hint", **options)(importance, torch.arange(300), 4, 1, 196)
    shown = high & ~hint
    assert not (hint & ~high).any() and (shown.sum(dim=1) == 5).all()  # int(0.1 * 0.3 * 196)
    top = importance.argsort(dim=1, descending=True)[:, :19]  # int(0.1 * 196)
    counts = shown.gather(1, top).float().sum(dim=0)
    assert counts.sum() == 300 * 5  # nothing outside the top is shown
    assert (counts - 300 * 5 / 19).abs().max() < 5 * (300 * 5 / 19) ** 0.5  # and all of it alike


def test_the_ratio_is_drawn_once_a_step_within_its_range():
    generator = build_masks("attention_high", ratio=0.4, ratio_var=0.2, image_prob=1.0, seed=1)
    importance, counts = importance_of(8, 100), []
    for step in range(200):
        rows = generator(importance, torch.arange(8), step, 1, 100).sum(dim=1)
        assert (rows == rows[0]).all()
        counts.append(int(rows[0]))
    assert 19 <= min(counts) < 24 and 56 < max(counts) <= 60


@pytest.mark.parametrize(
    "mode, options",
    [("attention", dict(p=0.5)), ("random", dict(p=0.5)), ("attention_high", dict(image_prob=1.0))],
)
def test_views_that_are_not_named_stay_whole(mode, options):
    generator = build_masks(mode, views=(1,), **options)
    mask = generator(importance_of(12, 16), torch.arange(6), 0, 2, 16)
    assert not mask[:6].any() and mask[6:].any()


def test_hints_have_a_ratio_of_their_own():
    """As AttMask's training draws one for the mask and another for the hints."""
    options = dict(ratio=0.4, ratio_var=0.3, image_prob=1.0, seed=1)
    importance, pairs = importance_of(1, 100), set()
    for step in range(100):
        hidden = build_masks("attention_high", **options)(importance, torch.arange(1), step, 1, 100)
        left = build_masks("attention_hint", show_max=0.9, **options)(importance, torch.arange(1), step, 1, 100)
        assert not (left & ~hidden).any()
        pairs.add((int(hidden.sum()), int((hidden & ~left).sum())))
    of_low, of_high = ([s / h for h, s in pairs if low <= h < low + 30] for low in (10, 40))
    assert min(of_low) < 0.25 < 0.5 < max(of_low) and min(of_high) < 0.25 < 0.5 < max(of_high)


@pytest.mark.parametrize(
    "mode, option, value",
    [
        ("attention", "ratio", 0.5),
        ("attention", "image_prob", 1.0),
        ("random", "num", 4),
        ("attention_high", "p", 0.5),
        ("attention_high", "show_max", 0.2),
        ("attention_hint", "num", 2),
    ],
)
def test_options_without_effect_are_refused(mode, option, value):
    others = dict(p=0.5) if mode == "random" else {}
    with pytest.raises(ValueError, match=f"masking.{option} = {value} has no effect in mode '{mode}'"):
        build_masks(mode, **others, **{option: value})
    build_masks("none", **{option: value})  # so that mode=none alone turns any config into DINO


def test_masks_that_could_hide_or_show_nothing_are_refused():
    build_masks("attention", num=36).check_size(36)
    with pytest.raises(ValueError, match="masking.num = 37 hides nothing: a global view has 36 patches"):
        build_masks("attention", num=37).check_size(36)
    build_masks("attention_high", ratio=0.1).check_size(36)
    with pytest.raises(ValueError, match="masking.ratio = 0.02 hides nothing.*at least 0.028"):
        build_masks("attention_high", ratio=0.02).check_size(36)
    build_masks("attention_hint", ratio=0.3).check_size(36)
    with pytest.raises(ValueError, match="masking.show_max = 0.1 shows nothing"):
        build_masks("attention_hint", ratio=0.3).check_size(16)
