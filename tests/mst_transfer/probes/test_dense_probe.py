"""Both dense probes from images to figures."""

import numpy as np
import pytest
from planted_scenes import write_images
from test_dense_features import REGISTERS, SWIN, make_frozen

from mst_transfer.probes import dense_probe as module
from mst_transfer.probes.dense_features import extract_tokens
from mst_transfer.probes.dense_images import DenseImages, mean_iou
from mst_transfer.probes.dense_linear import LogisticRegression
from mst_transfer.probes.dense_probe import dense_probe
from mst_transfer.probes.labelled_images import label_subset

COLOURS = np.array([[30, 30, 200], [200, 40, 30], [30, 200, 40], [220, 220, 220]])


def scenes(folder, number, seed=0, **options):
    """Images in which a class is a colour, with noise, and of which a tenth of the labels is missing."""
    random, maps = np.random.default_rng(seed), []
    for _ in range(number):
        labels = np.kron(random.integers(0, 4, (3, 4)), np.ones((16, 16)))[:43, :59].astype(np.uint8)
        labels[random.random(labels.shape) < 0.1] = 255
        maps.append(labels)

    def look(labels):
        colour = COLOURS[np.where(labels == 255, 0, labels)]
        return (colour + random.normal(0, 40, (*labels.shape, 3))).clip(0, 255).astype(np.uint8)

    folder.mkdir()
    return DenseImages(write_images(folder, maps, look), 4, multiple=8, **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Twelve training and three validation images."""
    folder = tmp_path_factory.mktemp("scenes")
    return scenes(folder / "train", 12), scenes(folder / "val", 3, seed=1)


def test_both_probes_of_several_subsets(pair):
    options = dict(labels=(1, 4, "100%"), seeds=(0, 1))
    results = list(dense_probe(make_frozen(), *pair, keep_maps=[2], **options))
    assert [(r.seed, r.labels, r.protocol) for r in results] == [
        (seed, labels, protocol) for seed in (0, 1) for labels in (1, 4, "100%") for protocol in module.PROTOCOLS
    ]
    again = list(dense_probe(make_frozen(), *pair, **options | dict(seeds=(0,))))
    for one, other in zip(results, again, strict=False):
        assert np.array_equal(one.counts, other.counts) and one.chosen == other.chosen
        assert one.miou == mean_iou(one.counts) and one.counts.shape == (3, 4, 3)
        assert list(one.maps) == [2] and one.maps[2].shape == (43, 59) and not other.maps
        known = pair[1].label_map(2) != 255
        assert (one.maps[2] == pair[1].label_map(2)).sum() == one.counts[2, :, 0].sum() <= known.sum()
    figures = {(r.protocol, r.labels, r.seed): r for r in results}
    for protocol in module.PROTOCOLS:
        assert figures[protocol, "100%", 0].miou > max(60, figures[protocol, 1, 0].miou)
    assert np.array_equal(figures["dense_knn", "100%", 0].counts, figures["dense_knn", "100%", 1].counts)
    assert not np.array_equal(figures["dense_knn", 1, 0].counts, figures["dense_knn", 1, 1].counts)
    one, many = figures["dense_linear", 1, 0].chosen, figures["dense_linear", "100%", 0].chosen
    assert one["held_out"] == {} and one["l2"] == module.L2S[2] and one["images"] == 1
    assert set(many["held_out"]) == set(module.L2S) and many["tokens"] == 12 * 5 * 7
    assert many["l2"] == max(many["held_out"], key=many["held_out"].get)


def test_the_linear_figure_is_that_of_its_parts(pair):
    """With the labels of some images alone, out of all that were extracted."""
    train, val = pair
    result = list(dense_probe(make_frozen(), train, val, protocols=["dense_linear"], labels=["100%", 5], num_blocks=2))[
        1
    ]
    images, frozen = label_subset(12, 5, 0), make_frozen()
    memory = extract_tokens(frozen, train, images, 2)
    problem = LogisticRegression(memory, memory.select(range(5)))
    problem.fit(result.chosen["l2"])
    queries = extract_tokens(frozen, val, range(3), 2)
    counts, _ = val.compare(((i, problem.scores(queries.image(i))) for i in range(3)), problem.classes)
    assert memory.tokens.shape[1] == 48 and abs(counts - result.counts).max() <= 5


def test_neighbours_are_those_of_the_last_block(pair):
    one, three = (
        next(iter(dense_probe(make_frozen(), *pair, protocols=["dense_knn"], num_blocks=number))) for number in (1, 3)
    )
    assert np.array_equal(one.counts, three.counts)


def test_order_batches_and_storage_make_no_difference(pair, tmp_path):
    turned = [DenseImages(x.pairs[::-1], 4, multiple=8) for x in pair]
    ours, theirs = (
        list(dense_probe(make_frozen(), *sets, **options))
        for sets, options in ((pair, {}), (turned, dict(batch_size=5, num_workers=1, store_path=tmp_path)))
    )
    assert np.array_equal(ours[0].counts, theirs[0].counts[::-1])
    assert abs(ours[1].counts - theirs[1].counts[::-1]).max() <= 5 or ours[1].chosen["l2"] != theirs[1].chosen["l2"]


@pytest.mark.parametrize(
    ("arch", "options", "multiple"),
    [("vit_small_patch14_reg4_dinov2", REGISTERS, 14), ("swin_tiny_patch4_window7_224", SWIN, 8)],
)
def test_registers_patch_14_and_swin(tmp_path, arch, options, multiple):
    train, val = scenes(tmp_path / "train", 4), scenes(tmp_path / "val", 1, seed=1)
    train.multiple = val.multiple = multiple
    results = list(dense_probe(make_frozen(arch, **options), train, val))
    assert len(results) == 2 and all(result.miou > 30 for result in results)


def test_wrong_options_are_refused_before_anything_is_read(pair, tmp_path):
    train, val = pair
    for options, message in (
        (dict(protocols=["knn"]), "protocol 'knn' is not known: choose of dense_knn, dense_linear"),
        (dict(labels=[13]), "labels = 13 must be a number of training images in 1 … 12"),
        (dict(num_blocks=4), "blocks = 4 must lie in 1 … 3"),
    ):
        with pytest.raises(ValueError, match=message):
            next(dense_probe(make_frozen(), train, val, **options))
    with pytest.raises(ValueError, match="train has 4 classes, val 5: both need the same"):
        next(dense_probe(make_frozen(), train, DenseImages(val.pairs, 5, multiple=8)))
    unlabelled = DenseImages(write_images(tmp_path, [np.full((8, 8), 255, np.uint8)]), 4, multiple=8)
    with pytest.raises(ValueError, match="labels = '100%', seed 0: no pixel of these 1 images has a class"):
        next(dense_probe(make_frozen(), unlabelled, val))
    with pytest.raises(ValueError, match="no pixel of the validation images has a class"):
        next(dense_probe(make_frozen(), train, unlabelled))
