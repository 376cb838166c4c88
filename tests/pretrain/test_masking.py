import pytest
import torch

from pretrain.counter_random import derive_key, uniform
from pretrain.masking import MaskGenerator, attention_guided_mask


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


def test_high_attention_patches_are_never_hidden():
    importance = torch.rand(64, 196, generator=torch.Generator().manual_seed(1))
    for step in range(20):
        mask = MaskGenerator(num=8, p=0.7, seed=4)(importance, torch.arange(64), step, 1, 196)
        threshold = importance.sort(dim=1).values[:, 196 // 8 - 1 : 196 // 8]
        assert not (mask & (importance > threshold)).any()
        assert mask.any()


def test_each_candidate_is_hidden_with_probability_p():
    importance = torch.rand(500, 64, generator=torch.Generator().manual_seed(2))
    candidates = attention_guided_mask(importance, 4, 1.0)
    assert (candidates.sum(dim=1) == 16).all()
    mask = MaskGenerator(num=4, p=0.3, seed=0)(importance, torch.arange(500), 0, 1, 64)
    rate = mask[candidates].float().mean().item()
    assert abs(rate - 0.3) < 4 * (0.3 * 0.7 / 8000) ** 0.5
    assert mask[candidates].tolist() == (uniform(derive_key(0, 0, 0), torch.arange(500), 64) < 0.3)[candidates].tolist()


def test_random_mode_ignores_importance():
    generator = MaskGenerator(mode="random", p=0.25, seed=3)
    assert not generator.needs_importance
    mask = generator(None, torch.arange(400), 5, 2, 100)
    assert mask.shape == (800, 100)
    assert abs(mask.float().mean().item() - 0.25) < 0.01
    assert not torch.equal(mask[:400], mask[400:])  # the two views draw apart


def test_draws_follow_the_sample_not_its_place_in_the_batch():
    generator = MaskGenerator(mode="random", p=0.5, seed=3)
    whole = generator(None, torch.arange(8), 2, 1, 30)
    assert torch.equal(whole[[6, 1]], generator(None, torch.tensor([6, 1]), 2, 1, 30))
    assert not torch.equal(whole, generator(None, torch.arange(8), 3, 1, 30))


def test_none_mode_gives_no_mask():
    assert MaskGenerator(mode="none")(None, torch.arange(2), 0, 2, 9) is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(mode="atention"), ["atention", "attention, random, none"]),
        (dict(num=0), ["masking.num = 0", ">= 1"]),
        (dict(p=1.5), ["masking.p = 1.5", "[0, 1]"]),
        (dict(mode="random"), ["hides every patch", "p < 1"]),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as error:
        MaskGenerator(**arguments)
    assert all(word in str(error.value) for word in words)
