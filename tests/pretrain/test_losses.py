import math

import pytest
import torch
from torch import distributed as dist

from pretrain.losses import DINOLoss, restoring_loss, view_cross_entropy


def plain_loop(student: torch.Tensor, probs: torch.Tensor, temp: float) -> torch.Tensor:
    """DINO, algorithm 1 with multi-crop: a sum over pairs of different views, then over prototypes."""
    terms = []
    for t in range(probs.shape[0]):
        for v in range(student.shape[0]):
            if v == t:
                continue
            for b in range(student.shape[1]):
                scores = student[v, b].double() / temp
                log_probs = scores - scores.exp().sum().log()
                terms.append(-(probs[t, b].double() * log_probs).sum())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("num_views", [2, 3, 10])
def test_cross_entropy_and_gradient_equal_a_plain_loop(num_views):
    torch.manual_seed(0)
    student = torch.randn(num_views, 3, 11, requires_grad=True)
    probs = (torch.randn(2, 3, 11) * 3).softmax(dim=-1)
    ours, theirs = view_cross_entropy(student, probs, 0.1), plain_loop(student, probs, 0.1)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


def test_teacher_is_centred_and_sharpened_and_the_centre_follows():
    torch.manual_seed(0)
    loss = DINOLoss(out_dim=7, student_temp=0.2, center_momentum=0.9).train()
    loss.center.copy_(torch.randn(1, 7))
    before = loss.center.clone()
    batches = [(torch.randn(4, 3, 7), torch.randn(2, 3, 7)) for _ in range(2)]
    for student, teacher in batches:
        value, entropy = loss(student, teacher, teacher_temp=0.05)
        probs = torch.stack([((view - before) / 0.05).softmax(dim=-1) for view in teacher])
        torch.testing.assert_close(value.double(), plain_loop(student, probs, 0.2), rtol=1e-5, atol=1e-5)
        expected = sum(-p * math.log(p) for p in probs.flatten().tolist() if p > 0) / 6
        assert entropy.item() == pytest.approx(expected, abs=1e-5)
        assert torch.equal(loss.center, before)  # one centre for all micro-batches of a step
    loss.update_center()
    rows = [row for _, teacher in batches for view in teacher for row in view]
    mean = sum(rows) / len(rows)
    torch.testing.assert_close(loss.center, 0.9 * before + 0.1 * mean[None])
    loss(*batches[0], teacher_temp=0.05)
    loss.discard_center_update()
    assert not loss._pending


def test_no_gradient_reaches_the_teacher():
    teacher = torch.randn(2, 3, 7, requires_grad=True)
    student = torch.randn(4, 3, 7, requires_grad=True)
    DINOLoss(7)(student, teacher, 0.04)[0].backward()
    assert teacher.grad is None and student.grad is not None


def test_restoring_loss_covers_every_pixel():
    views, restored = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    pairs = list(zip(views.flatten().tolist(), restored.flatten().tolist(), strict=True))
    assert restoring_loss(restored, views).item() == pytest.approx(sum(abs(a - b) for a, b in pairs) / len(pairs))


@pytest.mark.parametrize("arguments", [dict(student_temp=0.0), dict(center_momentum=1.5)])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"loss.{next(iter(arguments))}"):
        DINOLoss(8, **arguments)


def test_the_centre_is_the_mean_over_processes(monkeypatch):
    """A second process whose logits are the same leaves it where it is."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda total: total.mul_(2))
    loss, teacher = DINOLoss(out_dim=7), torch.randn(2, 3, 7)
    loss(torch.randn(4, 3, 7), teacher, teacher_temp=0.05)
    loss.update_center()
    torch.testing.assert_close(loss.center, 0.1 * teacher.mean(dim=(0, 1))[None])
