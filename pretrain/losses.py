"""The two losses of MST: DINO's cross-entropy between views, and the restoring loss over whole views.

Legend: B images, V views of the student (2 global first, then local), K prototypes.
"""

import torch
from torch import Tensor, nn
from torch import distributed as dist


def view_cross_entropy(student_logits: Tensor, teacher_probs: Tensor, student_temp: float) -> Tensor:
    """Mean of H(teacher view t, student view v) over all pairs t ≠ v and over the batch (DINO, equation 3).

    As a teacher row sums to 1, ``-q · log_softmax(s)`` is ``logsumexp(s) - q · s``; the sum over pairs then needs one
    logsumexp a student view and one product a teacher view, not one log-softmax a pair.

    Args:
        student_logits: [V, B, K], not divided by the temperature; views 0 … T-1 are the teacher's views.
        teacher_probs: [T, B, K], rows sum to 1, no gradient.
        student_temp: > 0.

    Returns:
        Scalar, float32.
    """
    num_views, num_teacher = student_logits.shape[0], teacher_probs.shape[0]
    logits = student_logits.float() / student_temp
    log_partition = logits.logsumexp(dim=-1).mean(dim=1)  # [V]
    pairs_of_view = torch.full((num_views,), float(num_teacher), device=logits.device)
    pairs_of_view[:num_teacher] -= 1
    total = logits.sum(dim=0)  # [B, K]
    products = ((total - logits[:num_teacher]) * teacher_probs).sum(dim=-1).mean(dim=1)  # [T]
    num_pairs = num_teacher * num_views - num_teacher
    return ((pairs_of_view * log_partition).sum() - products.sum()) / num_pairs


def restoring_loss(restored: Tensor, views: Tensor) -> Tensor:
    """Mean absolute error over *all* pixels of the views, masked or not (MST, section 3.3).

    Both are [B, 3, H, W]; ``views`` are augmented and normalised.
    """
    return (restored.float() - views.float()).abs().mean()


class DINOLoss(nn.Module):
    """Centred and sharpened teacher against student.

    Args:
        out_dim: K.
        student_temp: 0.1 in DINO.
        center_momentum: of the running mean of the teacher's logits, 0.9 in DINO.
    """

    center: Tensor

    def __init__(self, out_dim: int, student_temp: float = 0.1, center_momentum: float = 0.9) -> None:
        super().__init__()
        if student_temp <= 0:
            raise ValueError(f"loss.student_temp = {student_temp} must be positive")
        if not 0 <= center_momentum <= 1:
            raise ValueError(f"loss.center_momentum = {center_momentum} must lie in [0, 1]")
        self.student_temp, self.center_momentum = student_temp, center_momentum
        self.register_buffer("center", torch.zeros(1, out_dim))
        self._pending: list[tuple[Tensor, int]] = []

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, teacher_temp: float) -> tuple[Tensor, Tensor]:
        """Cross-entropy of a micro-batch, and the teacher's mean entropy in nats (at most ln K).

        The centre is used as it stands; call ``update_center`` once the step is complete. The student's logits are
        [V, B, K], the teacher's [T, B, K]; its temperature is > 0.
        """
        with torch.no_grad():
            teacher_logits = teacher_logits.float()
            log_probs = ((teacher_logits - self.center) / teacher_temp).log_softmax(dim=-1)
            probs = log_probs.exp()
            entropy = -(probs * log_probs).sum(dim=-1).mean()
            if self.training:
                self._pending.append((teacher_logits.sum(dim=(0, 1)), teacher_logits[..., 0].numel()))
        return view_cross_entropy(student_logits, probs, self.student_temp), entropy

    @torch.no_grad()
    def update_center(self) -> None:
        """Move the centre towards the mean of all teacher logits since the last call, on all ranks together."""
        total = torch.stack([logits for logits, _ in self._pending]).sum(dim=0)
        count = sum(number for _, number in self._pending)
        self._pending.clear()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
            count *= dist.get_world_size()
        self.center.mul_(self.center_momentum).add_(total / count, alpha=1 - self.center_momentum)

    def discard_center_update(self) -> None:
        """Forget the logits of a step that is not taken."""
        self._pending.clear()
