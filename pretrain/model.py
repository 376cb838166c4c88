"""MST's parts: student, teacher, mask, decoder and losses. What is done with them: ``pretrain.step``."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mst_transfer.checkpoint.normalisation import IMAGENET_MEAN, IMAGENET_STD
from mst_transfer.checkpoint.pos_embed import MARK
from pretrain.attmask import build_mask_generator
from pretrain.backbones import build_backbone
from pretrain.backbones.masked import MaskedBackbone
from pretrain.decoder import RestoringDecoder
from pretrain.head import DINOHead
from pretrain.losses import DINOLoss
from pretrain.registry import MODELS
from pretrain.run.warm_start import load_head, start_from
from pretrain.step import MSTStep, Network


@MODELS.register_module()
class MST(MSTStep):
    """Masked Self-supervised Transformer.

    Args:
        backbone: arguments of ``build_backbone``.
        head: arguments of ``DINOHead``, without ``in_dim``.
        masking: arguments of ``build_mask_generator``; ``dict(mode='none')`` is plain DINO.
        decoder: arguments of ``RestoringDecoder``, without ``in_dim`` and ``stride``; None for
            no restoring loss.
        loss: arguments of ``DINOLoss``, without ``out_dim``.
        cross_entropy_weight: λ1.
        restoring_weight: λ2.
        mean, std: RGB, on a 0-1 scale; recorded in the backbone files.
        init_from: backbone file to go on from: ours, DINO's, timm's, …; covered completely or refused. Head, decoder
            and [MASK] start fresh. See ``head_only_epochs`` of ``Schedule``.
        init_head: take the head and the centre from the same file too: DINO's full checkpoints or our epoch_N.pth.
    """

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
        self.mask_generator = build_mask_generator(**(masking or {}))
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
            start_from(self.student, init_from, mean, std, backbone.get("arch"))
            if init_head:
                load_head(self.student.head, self.dino_loss.center, init_from)
        elif init_head:
            raise ValueError("model.init_head = True needs model.init_from, the file to take the head from")
        self.cross_entropy_weight, self.restoring_weight = cross_entropy_weight, restoring_weight
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)
        self.ema_tensors = self._ema_tensors()
        self.update_teacher(0.0)

    @staticmethod
    def _network(backbone: MaskedBackbone, head: dict) -> Network:
        return Network(backbone, DINOHead(backbone.embed_dim, **head))

    def init_weights(self) -> None:
        """Nothing to do: the parts initialise themselves when they are built."""

    def _apply(self, *args, **kwargs) -> "MST":
        """Moves or converts; parameters may be other objects then."""
        super()._apply(*args, **kwargs)
        self.ema_tensors = self._ema_tensors()
        return self

    def train(self, mode: bool = True) -> "MST":
        """The teacher's backbone always stays in evaluation mode: it has no stochastic depth."""
        super().train(mode)
        self.teacher.backbone.eval()
        return self

    def _ema_tensors(self) -> tuple[list[Tensor], list[Tensor]]:
        """Teacher's parameters and the student's of the same names; the [MASK] embedding has no counterpart."""
        student = dict(self.student.named_parameters())
        names, teacher = zip(*self.teacher.named_parameters(), strict=True)
        rest = set(self.teacher.state_dict()) - set(names) - {f"backbone.{MARK}"}
        assert not rest, f"buffers would have to follow the student too: {rest}"
        return list(teacher), [student[name] for name in names]
