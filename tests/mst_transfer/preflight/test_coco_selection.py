"""The rules for what mmdet leaves out are mmdet's: its own dataset, on the same file, is the oracle."""

from collections import Counter

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from small_sets import annotation, coco_dataset, write_coco

from mst_transfer.datasets.coco_columns import read_columns, rows_of
from mst_transfer.preflight.coco_records import select


def messy_annotations():
    changes = [
        dict(),
        dict(bbox=[1, 1, 0, 4]),
        dict(bbox=[1, 1, 4, -2]),
        dict(bbox=[1, 1, 0.5, 4]),
        dict(bbox=[9, 9, 4, 4]),
        dict(bbox=[-6, 1, 4, 4]),
        dict(bbox=[-2, -2, 4, 4]),
        dict(bbox=[6, 6, 4, 4]),
        dict(area=0),
        dict(area=-1),
        dict(ignore=1),
        dict(ignore=0),
        dict(iscrowd=1),
        dict(category_id=2),
        dict(category_id=3),
        dict(image_id=99),
        dict(image_id=99, bbox=[0, 0, 0, 0]),
        dict(category_id=3, area=0),
        dict(category_id=3, image_id=4),  # alone in its image
    ]
    return [annotation(index, **{"image_id": index % 4} | change) for index, change in enumerate(changes)]


@pytest.mark.parametrize("test_mode", [False, True])
@pytest.mark.parametrize("filter_cfg", [None, dict(filter_empty_gt=True, min_size=6)])
def test_the_same_instances_and_images_as_mmdet(tmp_path, filter_cfg, test_mode):
    classes = ("cat", "dog")
    images = [dict(id=index, file_name=f"{index}.png", width=8, height=8) for index in range(6)]
    images[1]["height"] = 5
    path = write_coco(
        tmp_path, names=("cat", "dog", "cow"), num_images=6, annotations=messy_annotations(), images=images
    )
    options = coco_dataset(tmp_path, metainfo=dict(classes=classes), filter_cfg=filter_cfg, test_mode=test_mode)
    options.pop("type")
    theirs = CocoDataset(pipeline=[], **options)
    infos = [theirs.get_data_info(index) for index in range(len(theirs))]

    columns = read_columns(str(path))
    selection = select(columns, {1, 2}, filter_cfg, test_mode)
    assert columns.image_ids[selection.images].tolist() == [info["img_id"] for info in infos]
    used = selection.instances & np.isin(columns.of_image, columns.image_ids[selection.images])
    ours = Counter(columns.of_image[used].tolist())
    assert ours == Counter({info["img_id"]: len(info["instances"]) for info in infos if info["instances"]})
    assert sum(rows.sum() for rows in selection.left_out.values()) + selection.instances.sum() == len(columns.ids)


def test_rows_are_found_by_id():
    ids = np.array([30, 10, 20])
    assert rows_of(np.array([10, 30, 5, 99, 20]), ids).tolist() == [1, 0, -1, -1, 2]
    assert rows_of(np.array([1]), np.array([], np.int64)).tolist() == [-1]
