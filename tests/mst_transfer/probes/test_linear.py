"""The linear protocol against torch's own optimiser and schedule."""

import pytest
import torch
import torch.nn.functional as F

from mst_transfer.probes.linear import LinearProbes, cached_batches, split_held_out, train_linear


def separable(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.eye(3)[labels] + 0.3 * torch.randn(count, 3, generator=generator), labels


def test_each_classifier_equals_torchs_sgd_with_a_cosine():
    lrs, epochs, batch = [0.05, 0.5], 4, 10
    features, labels = separable(40, 0)
    batches = cached_batches(features, labels, batch, seed=3)
    probes = LinearProbes(3, 3, lrs, batch, epochs, seed=1)
    linears = []
    for index, lr in enumerate(lrs):
        linear = torch.nn.Linear(3, 3)
        linear.load_state_dict(
            {"weight": probes.weight[index].detach().clone(), "bias": probes.bias[index].detach().clone()}
        )
        optimizer = torch.optim.SGD(linear.parameters(), lr * batch / 256, momentum=0.9, weight_decay=0)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=0)
        for epoch in range(epochs):
            for x, y in batches(epoch):
                optimizer.zero_grad()
                F.cross_entropy(linear(x), y).backward()
                optimizer.step()
            scheduler.step()
        linears.append(linear)
    train_linear(batches, probes, (features, labels), (features, labels))
    for index, linear in enumerate(linears):
        torch.testing.assert_close(probes.weight[index], linear.weight, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(probes.bias[index], linear.bias, atol=1e-6, rtol=1e-5)


def test_the_learning_rate_is_chosen_on_the_held_out_images_alone():
    train, val = separable(60, 0), separable(30, 1)
    held_out = separable(30, 2)
    probes = LinearProbes(3, 3, [1e-9, 1.0], 60, 30)
    result = train_linear(cached_batches(*train, 60, 0), probes, val, held_out)
    assert result.lr == 1.0 and result.held_out[1.0] > 90 > result.held_out[1e-9]
    assert result.top1 == result.top1_by_lr[1.0] == probes.scores(*val)[1.0][0]


def test_of_equal_accuracies_the_lower_cross_entropy_counts():
    """Two images are held out of sixteen labels: most rates are right on both, also one that has hardly begun."""
    train, val, held_out = separable(14, 0), separable(30, 1), separable(2, 2)
    probes = LinearProbes(3, 3, [0.1, 1.0], 14, 100)
    result = train_linear(cached_batches(*train, 14, 0), probes, val, held_out)
    losses = [F.cross_entropy(logits, held_out[1]).item() for logits in probes.logits(held_out[0])]
    assert result.held_out == {0.1: 100, 1.0: 100} and losses[1] < losses[0] and result.lr == 1.0
    assert [loss for _, loss in probes.scores(*held_out).values()] == pytest.approx(losses)


def test_initial_weights_are_dinos():
    weight = LinearProbes(400, 50, [0.1], 256, 1).weight
    assert weight.std().item() == pytest.approx(0.01, rel=0.02) and abs(weight.mean().item()) < 3e-4


def test_held_out_images_are_not_trained_on():
    kept, held_out = split_held_out(50, 0.2, seed=0)
    assert len(held_out) == 10 and sorted([*kept.tolist(), *held_out.tolist()]) == list(range(50))


def test_every_image_comes_once_an_epoch_in_another_order():
    batches = cached_batches(torch.arange(10.0)[:, None], torch.arange(10), 4, seed=0)
    first, second = ([int(y) for _, ys in batches(epoch) for y in ys] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


def test_losses_that_are_not_finite_stop():
    broken = cached_batches(torch.full((4, 3), float("nan")), torch.zeros(4, dtype=torch.long), 4, 0)
    with pytest.raises(FloatingPointError, match="no loss is finite in epoch 1"):
        train_linear(broken, LinearProbes(3, 3, [0.1], 4, 1), separable(3, 0))
