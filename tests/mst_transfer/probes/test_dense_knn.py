"""Dense k-NN against a plain loop, and against the published code on the same features (``make_hummingbird.py``)."""

import math

import numpy as np
import pytest
import torch
from golden_files import read
from planted_scenes import features_of, write_images

from mst_transfer.probes import dense_knn as module
from mst_transfer.probes.dense_images import DenseImages, mean_iou
from mst_transfer.probes.dense_knn import dense_knn


def random_features(num_images, grid, width=5, num_classes=3, seed=0):
    random = np.random.default_rng(seed)
    num_tokens = num_images * math.prod(grid)
    labels = random.dirichlet([0.3] * num_classes, num_tokens).astype(np.float32)
    return features_of(random.normal(size=(num_tokens, width)).astype(np.float32), labels, [grid] * num_images)


def test_scores_equal_a_plain_loop(monkeypatch):
    monkeypatch.setattr(module, "_KEYS", 7)
    monkeypatch.setattr(module, "_QUERIES", 13)
    monkeypatch.setattr(module, "_BLOCK", 5)
    train, val = random_features(4, (2, 3)), random_features(3, (3, 2), seed=1)
    keys = train.select([3, 0, 2])
    answers = dict(dense_knn(train, keys, val, k=4, temperature=0.1))
    assert list(answers) == [0, 1, 2]
    for image, scores in answers.items():
        assert scores.shape == (3, 2, 3)
        for query, score in zip(val.tokens[6 * image :], scores.flatten(0, 1), strict=False):
            near = []
            for key in keys:
                other = train.tokens[key]
                near.append((float(query @ other) / math.sqrt(float(query @ query) * float(other @ other)), int(key)))
            weights = [(math.exp(cosine / 0.1), key) for cosine, key in sorted(near, reverse=True)[:4]]
            total = sum(weight for weight, _ in weights)
            for label in range(3):
                expected = sum(weight * float(train.soft_labels[key, label]) for weight, key in weights) / total
                assert float(score[label]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("chunk", [16, 4096])
def test_the_published_codes_figures(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(module, "_KEYS", chunk)
    golden, origin = read("hummingbird.safetensors")
    labels = golden["labels"].numpy()
    images = DenseImages(write_images(tmp_path, labels), 4, multiple=4)
    soft = np.concatenate([images.soft_labels(index, (6, 6)) for index in range(len(labels))])
    grids = [(6, 6)] * len(labels)
    everything = features_of(golden["tokens"].flatten(0, 1).numpy(), soft, grids)
    np.testing.assert_allclose(soft[: 6 * 36], golden["soft_labels"].numpy(), atol=1e-6)
    val = features_of(everything.tokens[6 * 36 :], soft[6 * 36 :], grids[6:], first=6)
    answers = list(dense_knn(everything, everything.select(range(6)), val, k=int(origin["k"])))
    ours = torch.stack([scores.flatten(0, 1) for _, scores in answers])
    torch.testing.assert_close(ours, golden["scores"], atol=1e-5, rtol=0)
    counts, maps = images.compare(answers, np.arange(4), keep_maps=[7])
    confusion = golden["confusion"].numpy()
    expected = np.stack([confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)], axis=1)
    assert np.array_equal(counts.sum(axis=0), expected) and list(maps) == [7]
    assert mean_iou(counts) == pytest.approx(100 * float(golden["miou"]), abs=1e-9)


def test_fewer_keys_than_neighbours():
    train, val = random_features(1, (1, 2)), random_features(1, (2, 2), seed=1)
    few, all_of_them = (dict(dense_knn(train, train.select([0]), val, k=k))[0] for k in (30, 2))
    torch.testing.assert_close(few, all_of_them)
