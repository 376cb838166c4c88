"""What is counted for a whole recipe, against sums by hand."""

import torch
from torch import nn

from benchmarks.full_scale import kept_for_backward


def test_what_is_kept_for_backward_is_counted_once_and_without_the_weights() -> None:
    """[2, 3] → Linear → [2, 5] → Linear → [2, 4] → square: each layer's input, and what is squared, once for two uses.

    The second layer's weight is kept too: it is the model's own.
    """
    model, image = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4)), torch.ones(2, 3)

    def loss() -> torch.Tensor:
        out = model(image)
        return (out * out).sum()

    value, kept = kept_for_backward(model, loss)
    assert kept == 4 * (2 * 3 + 2 * 5 + 2 * 4) and value.shape == ()
