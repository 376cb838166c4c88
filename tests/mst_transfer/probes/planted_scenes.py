"""Images, label maps and stores of tokens for the tests of dense probes."""

import math

import cv2
import numpy as np

from mst_transfer.probes.dense_features import DenseFeatures


def write_images(folder, label_maps, look=None):
    """A grey image of the size of each label map, or ``look(labels)``; pairs of its path and the map's."""
    pairs = []
    for number, labels in enumerate(label_maps):
        image, mask = str(folder / f"{number}.png"), str(folder / f"{number}_labels.png")
        cv2.imwrite(image, np.full((*labels.shape, 3), 128, np.uint8) if look is None else look(labels))
        cv2.imwrite(mask, labels)
        pairs.append((image, mask))
    return pairs


def features_of(tokens, soft_labels, grids, first=0):
    """A store of images with these grids, numbered from ``first`` on."""
    offsets = np.cumsum([0, *map(math.prod, grids)])
    return DenseFeatures(np.arange(len(grids)) + first, tokens, soft_labels, offsets, np.array(grids))
