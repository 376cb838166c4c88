"""DINO's projection head: a 3-layer MLP, an L2 bottleneck and a weight-normalised last layer.

Legend: B class tokens of width D, K prototypes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mst_transfer.devices.cpu_processes import build_batch_norm


class WeightNormLinear(nn.Module):
    """Linear layer without bias whose weight is ``weight_g * weight_v / |weight_v|``, row by row.

    Parameter names and shapes are those of ``torch.nn.utils.weight_norm``, hence of DINO's checkpoints.

    Args:
        in_dim: input width.
        out_dim: output width K.
        train_norm: learn ``weight_g`` [K, 1]; otherwise it stays 1, which stabilises training (DINO).
    """

    def __init__(self, in_dim: int, out_dim: int, train_norm: bool = False) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1), requires_grad=train_norm)
        self.weight_v = nn.Parameter(torch.empty(out_dim, in_dim))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_dim] → [..., K]."""
        weight = torch._weight_norm(self.weight_v, self.weight_g, 0)  # one pass forward, one backward, on CPU and CUDA
        if not x.is_cuda:
            return F.linear(x, weight)
        # Logits of 16 bits, divided by a temperature of 0.04, are off by up to 0.05 nats. TF32 is nearly as quick, and
        # the loss has no copy in float32 to make.
        with torch.autocast("cuda", enabled=False):
            return F.linear(x.float(), weight)


class DINOHead(nn.Module):
    """Projects class tokens to K prototypes' logits.

    Args:
        in_dim: width D of the class token.
        out_dim: K, 65,536 in DINO; hundreds to thousands for small data.
        hidden_dim: width of the two hidden layers.
        bottleneck_dim: width before the last layer; the vector there has unit length.
        norm_last_layer: keep the last layer's row norms at 1.
        use_bn: BatchNorm over the global batch after both hidden layers, student and teacher each by the statistics of
            their own views (DINO's ``use_bn_in_head``, off there too). It starts sooner where images look much alike.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = True,
        use_bn: bool = False,
    ) -> None:
        super().__init__()
        for name, value in dict(out_dim=out_dim, hidden_dim=hidden_dim, bottleneck_dim=bottleneck_dim).items():
            if value < 1:
                raise ValueError(f"head.{name} = {value} must be at least 1")
        self.out_dim = out_dim
        layers: list[nn.Module] = []
        for width in (in_dim, hidden_dim):
            layers.append(nn.Linear(width, hidden_dim))
            if use_bn:  # no running statistics: there is nothing for a teacher to follow or a skipped step to undo
                layers.append(build_batch_norm(hidden_dim, nn.BatchNorm1d, track_running_stats=False))
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden_dim, bottleneck_dim))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = WeightNormLinear(bottleneck_dim, out_dim, train_norm=not norm_last_layer)

    def forward(self, cls_token: Tensor) -> Tensor:
        """[B, D] → logits [B, K]."""
        return self.last_layer(F.normalize(self.mlp(cls_token), dim=-1))
