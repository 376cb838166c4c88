"""What happens to a batch between the loader and the model: the way to the device, and there the rest of the views."""

from typing import Any

from mmengine.model import BaseDataPreprocessor

from pretrain.data.photometric_device import apply_photometry

PHOTOMETRY = ("global_photometry", "local_photometry")


class PretrainPreprocessor(BaseDataPreprocessor):
    """Brings a batch to the device without waiting, and carries out there what the loader has left to it.

    A loader with ``photometric='device'`` adds ``global_photometry`` [B, G, P] and ``local_photometry`` [B, L, P] to
    its crops, see :func:`pretrain.data.photometric_plan.as_rows`; other batches pass unchanged.
    """

    def __init__(self) -> None:
        super().__init__(non_blocking=True)

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """The batch on the device, its crops uint8 and ready to be normalised; ``training`` changes nothing."""
        batch = dict(self.cast_data(data))
        for name in PHOTOMETRY:
            if name in batch:
                crops = name.replace("photometry", "crops")
                batch[crops] = apply_photometry(batch[crops], batch.pop(name))
        return batch
