"""The SETR head equals mmseg's: logits, gradients, names of parameters."""

import pytest
import torch
from mmseg.models.decode_heads import SETRUPHead as MMSegSETRUPHead

from mst_transfer.models.decode_heads import SETRUPHead


def heads(**options):
    """mmseg's head and ours with the same random weights."""
    common = dict(in_channels=16, channels=12, num_classes=5, in_index=0, dropout_ratio=0, norm_cfg=dict(type="BN"))
    common["loss_decode"] = dict(type="CrossEntropyLoss")
    pair = [cls(**common | options) for cls in (MMSegSETRUPHead, SETRUPHead)]
    torch.manual_seed(0)
    for name, value in pair[0].state_dict().items():
        if value.is_floating_point():
            value.normal_(0.0 if "mean" in name or "bias" in name else 1.0, 0.3).abs_()
    pair[1].load_state_dict(pair[0].state_dict())
    return pair


@pytest.mark.parametrize(
    "options",
    [
        dict(num_convs=1, up_scale=4),
        dict(num_convs=2, up_scale=4),
        dict(num_convs=4, up_scale=2),
        dict(num_convs=2, up_scale=2, align_corners=True),
        dict(num_convs=2, kernel_size=1),
        dict(num_convs=1, num_classes=2, out_channels=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [False, True])
def test_logits_and_gradients_equal_mmsegs(options, training):
    theirs, ours = (head.train(training).double() for head in heads(**options))
    features = [torch.randn(2, 16, 5, 7, dtype=torch.double)]
    outputs, gradients = [], []
    for head in (theirs, ours):
        output = head(features)
        output.square().mean().backward()
        outputs.append(output)
        gradients.append([parameter.grad for parameter in head.parameters()])
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_dropout_acts_as_in_mmseg():
    theirs, ours = heads(dropout_ratio=0.5, num_convs=2)
    features = [torch.randn(2, 16, 5, 7)]
    results = []
    for head in (theirs.train(), ours.train()):
        torch.manual_seed(1)
        results.append(head(features))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    torch.testing.assert_close(theirs.eval()(features), ours.eval()(features), rtol=1e-5, atol=1e-5)


def test_up_sampling_sees_classes_only():
    _, ours = heads(num_convs=3)
    seen = []
    ours.up_convs[-1][1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    ours.eval()([torch.randn(1, 16, 3, 4)])
    assert seen == [5]
