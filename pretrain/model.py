"""MST: student, teacher, mask, head and decoder, and what one micro-batch costs.

Legend: B images, G = 2 global views, L local views, N patches or cells of a global view, D embedding, K prototypes.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from mst_transfer.checkpoint.normalisation import IMAGENET_MEAN, IMAGENET_STD
from mst_transfer.checkpoint.pos_embed import MARK
from mst_transfer.devices.onednn_products import quick_products
from pretrain.backbones.build_backbone import Backbone, build_backbone
from pretrain.decoder import RestoringDecoder
from pretrain.head import DINOHead
from pretrain.losses import DINOLoss, restoring_loss
from pretrain.masking import MaskGenerator
from pretrain.registry import MODELS
from pretrain.run.warm_start import check_normalisation, start_from


class Network(nn.Module):
    """Backbone and head: what student and teacher have in common."""

    def __init__(self, backbone: Backbone, head: DINOHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


@MODELS.register_module()
class MST(BaseModel):
    """Masked Self-supervised Transformer.

    Args:
        backbone: arguments of :func:`~pretrain.backbones.build_backbone.build_backbone`.
        head: arguments of :class:`~pretrain.head.DINOHead`, without ``in_dim``.
        masking: arguments of :class:`~pretrain.masking.MaskGenerator`; ``dict(mode='none')`` is plain DINO.
        decoder: arguments of :class:`~pretrain.decoder.RestoringDecoder`, without ``in_dim`` and ``stride``; None for
            no restoring loss.
        loss: arguments of :class:`~pretrain.losses.DINOLoss`, without ``out_dim``.
        cross_entropy_weight: λ1.
        restoring_weight: λ2.
        mean, std: RGB, on a 0-1 scale; recorded in the backbone files.
        init_from: backbone file to go on from: ours, DINO's, timm's, …; covered completely or refused. Head, decoder
            and [MASK] start fresh. See ``head_only_epochs`` of :class:`~pretrain.schedules.Schedule`.
        init_head: take the head and the centre from the same file too: DINO's full checkpoints or our epoch_N.pth.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: dict | None = None,
        head: dict | None = None,
        masking: dict | None = None,
        decoder: Mapping | None = MappingProxyType({}),
        loss: dict | None = None,
        cross_entropy_weight: float = 1.0,
        restoring_weight: float = 1.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        init_from: str | None = None,
        init_head: bool = False,
    ) -> None:
        super().__init__(data_preprocessor=BaseDataPreprocessor(non_blocking=True))
        self.mask_generator = MaskGenerator(**(masking or {}))
        backbone, head = dict(backbone or {}), dict(head or {})
        teacher_backbone = {k: v for k, v in backbone.items() if k not in ("drop_path_rate", "grad_checkpointing")}
        with_mask_token = self.mask_generator.mode != "none"
        self.student = self._network(build_backbone(with_mask_token=with_mask_token, **backbone), head)
        self.teacher = self._network(build_backbone(with_mask_token=False, **teacher_backbone), head)
        self.teacher.requires_grad_(False)
        self.decoder = None
        if decoder is not None:
            features = self.student.backbone
            if rate := backbone.get("patch_drop_rate"):
                raise ValueError(
                    f"model.backbone.patch_drop_rate = {rate} leaves out patches, and model.decoder restores the view "
                    "from all of them: choose patch_drop_rate=0 or model.decoder=None"
                )
            self.decoder = RestoringDecoder(features.embed_dim, features.cell_size, **decoder)
        self.dino_loss = DINOLoss(self.student.head.out_dim, **(loss or {}))
        if init_from is not None:
            check_normalisation(init_from, mean, std, backbone.get("arch"))
            start_from(self.student, init_from, self.dino_loss.center, with_head=init_head)
        elif init_head:
            raise ValueError("model.init_head = True needs model.init_from, the file to take the head from")
        self.cross_entropy_weight, self.restoring_weight = cross_entropy_weight, restoring_weight
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)
        self._ema_tensors = self._ema_lists()
        self.update_teacher(0.0)

    @staticmethod
    def _network(backbone: Backbone, head: dict) -> Network:
        return Network(backbone, DINOHead(backbone.embed_dim, **head))

    def init_weights(self) -> None:
        """Nothing to do: the parts initialise themselves when they are built."""

    def train(self, mode: bool = True) -> "MST":
        """The teacher always stays in evaluation mode: it has no stochastic depth."""
        super().train(mode)
        self.teacher.eval()
        return self

    def normalise(self, views: Tensor) -> Tensor:
        """uint8 [..., 3, H, W] → float32, zero mean and unit variance over the pre-training images."""
        return (views.float() - self.mean) / self.std

    def _ema_lists(self) -> tuple[list[Tensor], list[Tensor]]:
        """Teacher's parameters and the student's of the same names; the [MASK] embedding has no counterpart."""
        student = dict(self.student.named_parameters())
        names, teacher = zip(*self.teacher.named_parameters(), strict=True)
        rest = set(self.teacher.state_dict()) - set(names) - {f"backbone.{MARK}"}
        assert not rest, f"buffers would have to follow the student too: {rest}"
        return list(teacher), [student[name] for name in names]

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Teacher ← momentum · teacher + (1 − momentum) · student."""
        teacher, student = self._ema_tensors
        if momentum == 0:
            torch._foreach_copy_(teacher, student)
        else:
            torch._foreach_lerp_(teacher, student, 1 - momentum)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The student's, without [MASK], which no released backbone has."""
        return list(self.student.backbone.vit.parameters())

    def last_layer_parameters(self) -> list[nn.Parameter]:
        """The student's last head layer, which is frozen at the start."""
        return list(self.student.head.last_layer.parameters())

    def forward(
        self,
        global_crops: Tensor,
        local_crops: Tensor,
        index: Tensor,
        step: int = 0,
        teacher_temp: float = 0.04,
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

        with torch.no_grad():
            seen = self.teacher.backbone(views, importance=self.mask_generator.needs_importance)
            teacher_logits = self.teacher.head(seen.cls_token)
        mask = self.mask_generator(seen.importance, index.to(views.device), step, num_global, num_patches)

        output = self.student.backbone(views, mask=mask, patch_tokens=self.decoder is not None)
        cls_tokens = [output.cls_token]
        if num_local:
            local_views = self.normalise(local_crops.transpose(0, 1).flatten(0, 1))
            cls_tokens.append(self.student.backbone(local_views).cls_token)
        logits = self.student.head(torch.cat(cls_tokens))

        cross_entropy, entropy = self.dino_loss(
            logits.unflatten(0, (num_global + num_local, B)),
            teacher_logits.unflatten(0, (num_global, B)),
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
