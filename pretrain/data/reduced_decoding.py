"""Photographs much larger than their crops: decoded at a half, a quarter or an eighth of their size.

libjpeg leaves out the high frequencies of each block as it decodes, which saves most of the colour conversion and of
the resizing. That is done only where every crop of the sample, as it has been drawn, still shrinks by ``MIN_SHRINK``
afterwards: then the antialiased filter of the resize decides on what is left. The boxes of such a sample are rounded
down to multiples of the factor.
"""

from collections.abc import Callable

from pretrain.data.augment import CropPlan
from mst_transfer.files.image_crops import Image

FACTORS = (8, 4, 2)
MIN_SHRINK = 1.5


def reduction_for(plans: list[CropPlan]) -> int:
    """The largest factor that leaves every crop to be shrunk by ``MIN_SHRINK`` or more; 1 if there is none."""
    shrink = min(min(plan.height, plan.width) / plan.size for plan in plans)
    return next((factor for factor in FACTORS if shrink >= factor * MIN_SHRINK), 1)


def reduce_box(plan: CropPlan, factor: int) -> CropPlan:
    """The plan for an image of ``1 / factor`` of the size, its edges rounded down."""
    top, left = plan.top // factor, plan.left // factor
    bottom, right = (plan.top + plan.height) // factor, (plan.left + plan.width) // factor
    return plan._replace(top=top, left=left, height=bottom - top, width=right - left)


class PlannedReduction:
    """Draws the crops of a file as soon as its size is known, and says by how much it may be reduced.

    Args:
        draw: height and width in pixels → plans of all crops.
    """

    def __init__(self, draw: Callable[[int, int], list[CropPlan]]) -> None:
        self._draw = draw
        self._size: tuple[int, int] | None = None
        self._plans: list[CropPlan] = []
        self._factor = 1

    def __call__(self, height: int, width: int) -> int:
        """The factor for a file that declares this size."""
        self._size, self._plans = (height, width), self._draw(height, width)
        self._factor = reduction_for(self._plans)
        return self._factor

    def plans_for(self, image: Image) -> list[CropPlan]:
        """The plans for the decoded image [H, W, 3], whether it has been reduced or not."""
        size = image.shape[:2]
        if size == self._size:
            return self._plans
        if self._size is None or size != tuple(-(-side // self._factor) for side in self._size):
            return self._draw(*size)
        return [reduce_box(plan, self._factor) for plan in self._plans]
