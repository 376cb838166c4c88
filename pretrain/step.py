"""One update of MST from top to bottom, in the order of the paper.

Legend: B images, G = 2 global views, L local views, N patches or cells of a global view, D embedding, K prototypes.
"""

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mst_transfer.devices.onednn_products import quick_products
from pretrain.backbones.masked import MaskedBackbone
from pretrain.decoder import RestoringDecoder
from pretrain.head import DINOHead
from pretrain.losses import DINOLoss, restoring_loss
from pretrain.masking import MaskGenerator
from pretrain.run.optim import PretrainOptimWrapper
from pretrain.schedules import StepValues


class Network(nn.Module):
    """Backbone and head: what student and teacher have in common."""

    def __init__(self, backbone: MaskedBackbone, head: DINOHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


class MSTStep(BaseModel):
    """Computes the losses of a micro-batch, and updates student, centre and teacher once all gradients are there.

    ``MST`` builds the parts; ``PretrainLoop`` calls, for each update,
    ``forward`` and ``backward`` on each micro-batch of each process, then ``update_student``, and unless the step
    is left out ``update_center`` and ``update_teacher``.
    """

    student: Network
    teacher: Network
    mask_generator: MaskGenerator
    decoder: RestoringDecoder | None
    dino_loss: DINOLoss
    cross_entropy_weight: float  # λ1
    restoring_weight: float  # λ2
    mean: Tensor  # [3, 1, 1], of pixels from 0 to 255
    std: Tensor
    ema_tensors: tuple[list[Tensor], list[Tensor]]  # the teacher's parameters, and the student's of the same names

    def forward(
        self, global_crops: Tensor, local_crops: Tensor, index: Tensor, step: int = 0, teacher_temp: float = 0.04
    ) -> dict[str, Tensor]:
        """Losses of a micro-batch.

        Args:
            global_crops: uint8 [B, G, 3, S, S].
            local_crops: uint8 [B, L, 3, s, s]; L may be 0.
            index: int64 [B], the samples' indices in the data set.
            step: optimiser step, counted from 0.
            teacher_temp: of the teacher's softmax.

        Returns:
            Scalars ``loss`` (with gradient), ``loss_dino``, ``loss_restoring`` (with a decoder), ``teacher_entropy``
            (nats) and ``mask_ratio``.
        """
        with quick_products(global_crops.device):
            return self._losses(global_crops, local_crops, index, step, teacher_temp)

    def _losses(
        self, global_crops: Tensor, local_crops: Tensor, index: Tensor, step: int, teacher_temp: float
    ) -> dict[str, Tensor]:
        B, num_global, num_local = global_crops.shape[0], global_crops.shape[1], local_crops.shape[1]
        views = self.normalise(global_crops.transpose(0, 1).flatten(0, 1))  # [G * B, 3, S, S], view-major
        num_patches = self.student.backbone.num_patches(*views.shape[-2:])

        # The teacher sees the whole views, and attends to their patches.
        with torch.no_grad():
            seen = self.teacher.backbone(views, importance=self.mask_generator.needs_importance, in_step=self.training)
            teacher_logits = self.teacher.head(seen.cls_token)  # [G * B, K]

        # Patches that it attends to least are hidden.
        mask = self.mask_generator(seen.importance, index.to(views.device), step, num_global, num_patches)  # [G * B, N]

        # The student sees masked global views and whole local views.
        keep = self.decoder is not None
        output = self.student.backbone(views, mask=mask, patch_tokens=keep, in_step=self.training)
        cls_tokens = [output.cls_token]  # [G * B, D]
        if num_local:
            local_views = self.normalise(local_crops.transpose(0, 1).flatten(0, 1))  # [L * B, 3, s, s]
            cls_tokens.append(self.student.backbone(local_views, in_step=self.training).cls_token)
        logits = self.student.head(torch.cat(cls_tokens))  # [(G + L) * B, K]

        # λ1 · cross-entropy between views + λ2 · mean absolute error of the restored views.
        cross_entropy, entropy = self.dino_loss(
            logits.unflatten(0, (num_global + num_local, B)),  # [G + L, B, K]
            teacher_logits.unflatten(0, (num_global, B)),  # [G, B, K]
            teacher_temp,
        )
        losses = {"loss": self.cross_entropy_weight * cross_entropy, "loss_dino": cross_entropy.detach()}
        if self.decoder is not None:
            restoring = restoring_loss(self.decoder(output.patch_tokens), views)
            losses["loss"] = losses["loss"] + self.restoring_weight * restoring
            losses["loss_restoring"] = restoring.detach()
        losses["teacher_entropy"] = entropy
        losses["mask_ratio"] = entropy.new_zeros(()) if mask is None else mask.float().mean()
        return losses

    def update_student(self, optim: PretrainOptimWrapper, values: StepValues, left_out: Tensor) -> None:
        """Student by its gradients, unless ``left_out``, a float32 [], is 1. Centre and teacher follow it."""
        frozen = [] if values.train_last_layer else self.last_layer_parameters()
        frozen += [] if values.train_backbone else self.backbone_parameters()
        for parameter in frozen:
            parameter.grad = None
        optim.step(left_out)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Teacher ← momentum · teacher + (1 − momentum) · student."""
        teacher, student = self.ema_tensors
        if momentum == 0:
            torch._foreach_copy_(teacher, student)
        else:
            torch._foreach_lerp_(teacher, student, 1 - momentum)

    def normalise(self, views: Tensor) -> Tensor:
        """uint8 [..., 3, H, W] → float32, zero mean and unit variance over the pre-training images."""
        return (views.float() - self.mean) / self.std

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The student's, without [MASK], which no released backbone has."""
        return list(self.student.backbone.vit.parameters())

    def last_layer_parameters(self) -> list[nn.Parameter]:
        """The student's last head layer, which is frozen at the start."""
        return list(self.student.head.last_layer.parameters())
