"""Cityscapes as it is downloaded: masks with ``labelIds`` become train ids while they are read."""

from typing import Any

from mmseg.datasets import CityscapesDataset as MmsegCityscapesDataset

from mst_transfer.datasets.cityscapes_ids import choose_masks, label_map_of_ids
from mst_transfer.registry import DATASETS


@DATASETS.register_module()
class CityscapesDataset(MmsegCityscapesDataset):
    """mmseg's ``CityscapesDataset`` that does not need ``csCreateTrainIdLabelImgs``.

    An image whose ``*_gtFine_labelTrainIds.png`` is missing gets its ``*_gtFine_labelIds.png``, and the label map
    that turns those ids into train ids, or into the classes that ``metainfo`` picks. mmseg's ``LoadAnnotations``
    applies it, in every pipeline. ``seg_map_suffix="_gtFine_labelIds.png"`` prefers the raw ids.

    On remote storage (``backend_args``) nothing is looked up: there the suffix alone decides.
    """

    reads_label_ids = True

    def load_data_list(self) -> list[dict[str, Any]]:
        """One dict an image, as mmseg's, with the mask's file and label map chosen for each."""
        infos = super().load_data_list()
        masks = [info["seg_map_path"] for info in infos if "seg_map_path" in info]
        if len(masks) != len(infos):  # a test set without masks
            return infos
        of_ids = label_map_of_ids(self.label_map)
        for info, (path, raw) in zip(infos, choose_masks(masks), strict=True):
            info["seg_map_path"] = path
            if raw:
                info["label_map"] = of_ids
        return infos
