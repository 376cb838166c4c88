"""Attention within windows of the token grid, as ViTDet has it (arXiv 2203.16527, section 3).

The grid is divided into squares of size×size tokens, and a token sees the tokens of its square only. Where the size
does not divide a side, the grid is padded with zeros on the right and at the bottom between norm and attention, as in
detectron2's ViTDet: the padded tokens have the keys and values of a zero input and are seen like any other.

Where it divides both sides, all tokens are put in the order of the windows once (``Windows.order``); a window is
then a slice of memory, and no block copies anything: norms, MLPs and global attention do not depend on the order.

Shapes: B images, grid of h rows and w columns, N = h·w patch tokens, S = ceil(h / size) · ceil(w / size) windows.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """The windows of one grid."""

    grid: tuple[int, int]  # rows and columns of patches
    size: int  # side of a window in patches

    @property
    def even(self) -> bool:
        """Whether the windows divide the grid without padding."""
        return self.grid[0] % self.size == 0 and self.grid[1] % self.size == 0

    def order(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, C] of rows of patches, in the order in which the other methods take them."""
        return self._to_windows(tokens).reshape(tokens.shape) if self.even else tokens

    def restore(self, tokens: Tensor) -> Tensor:
        """The inverse of ``order``."""
        return self._to_rows(tokens.unflatten(1, (-1, self.size**2))).flatten(1, 2) if self.even else tokens

    def split(self, tokens: Tensor) -> Tensor:
        """Ordered tokens [B, N, C] → windows [B·S, size², C]."""
        if self.even:
            return tokens.reshape(-1, self.size**2, tokens.shape[-1])
        return self._to_windows(tokens)

    def merge(self, windows: Tensor, batch_size: int) -> Tensor:
        """The inverse of ``split``; what stands in padded cells is left out."""
        windows = windows.unflatten(0, (batch_size, -1))
        if self.even:
            return windows.flatten(1, 2)
        return self._to_rows(windows)[:, : self.grid[0], : self.grid[1]].flatten(1, 2)

    def rotations(self, rotation: Tensor, batch_size: int) -> Tensor:
        """Ordered rotations [N, 2d] of the whole grid, cut into windows: [B·S, 1, size², 2d].

        Attention sees differences of positions only, so a window may keep the coordinates it has in the whole grid:
        the scale is the same in windows and in global blocks. Padded cells are not rotated.
        """
        width = rotation.shape[-1]
        none = torch.arange(width, device=rotation.device).ge(width // 2).to(rotation.dtype)  # sine 0 and cosine 1
        cut = self.split(rotation[None]) if self.even else self.split(rotation[None] - none) + none
        return cut[:, None].repeat(batch_size, 1, 1, 1)

    def _to_windows(self, tokens: Tensor) -> Tensor:
        (rows, columns), size = self.grid, self.size
        cells = tokens.unflatten(1, self.grid)
        if not self.even:
            cells = F.pad(cells, (0, 0, 0, -columns % size, 0, -rows % size))
        cells = cells.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # [B, h/size, size, w/size, size, C]
        return cells.transpose(2, 3).reshape(-1, size**2, tokens.shape[-1])

    def _to_rows(self, windows: Tensor) -> Tensor:
        """Windows [B, S, size², C] → [B, padded h, padded w, C]."""
        rows, columns = (-(-side // self.size) for side in self.grid)
        cells = windows.unflatten(2, (self.size, self.size)).unflatten(1, (rows, columns))
        return cells.transpose(2, 3).flatten(3, 4).flatten(1, 2)
