"""What loading has to know about a family of models, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from mst_transfer.checkpoint.metadata import BackboneMetadata


class Family(Protocol):
    """A family of timm models whose checkpoints are compared, fitted and checked alike.

    Attributes:
        name: in words, for messages.
        trunk: top-level names of tensors without which the features would differ.
        anchor: a tensor that every model of the family has.
    """

    name: str
    trunk: tuple[str, ...]
    anchor: str

    def takes(self, model: nn.Module) -> bool:
        """Whether a model belongs to the family."""
        ...

    def describe(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
        """What a checkpoint and a model must have in common, e.g. width and depth.

        Args:
            tensors: of a checkpoint or a model, under timm's names.
            names: those names, and the names of tensors that are left out on purpose.
        """
        ...

    def num_heads(self, model: nn.Module) -> Any:
        """Numbers of attention heads, which leave no trace in shapes; None where the model has none."""
        ...

    def fit(
        self,
        model: nn.Module,
        tensors: dict[str, Tensor],
        metadata: BackboneMetadata | None,
        interpolation: str,
        source: str,
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Resamples what depends on the image's size, the patch or the channels to the model.

        Args:
            model: which is to take the tensors.
            tensors: of the checkpoint, under timm's names; left as they are.
            metadata: of the checkpoint, None for a foreign file.
            interpolation: how position embeddings are to be resampled.
            source: the file's name, for messages.

        Returns:
            All tensors, and what was done to which, e.g. ``{"pos_embed": "14x14 -> 6x8"}``.

        Raises:
            BackboneRefusedError: a tensor cannot be resampled to the model.
        """
        ...
