"""Sliding inference equals mmseg's for all sizes, strides, batches and steps, in less memory."""

import copy
from contextlib import nullcontext

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel
from mmseg.structures import SegDataSample

from mst_transfer.models.segmentors import SlideEncoderDecoder, _classes

BACKBONE = dict(type="mst_transfer.TimmViT", arch="vit_tiny_patch16_224", img_size=(32, 32), patch_size=8, embed_dim=24)
BACKBONE |= dict(depth=2, num_heads=3, out_indices=(1,), checkpoint=None)
HEAD = dict(type="mst_transfer.SETRUPHead", in_channels=24, channels=8, num_classes=5, in_index=-1, num_convs=2)
HEAD |= dict(up_scale=4, dropout_ratio=0, norm_cfg=dict(type="BN"), align_corners=False)
HEAD |= dict(loss_decode=dict(type="CrossEntropyLoss"))
SLIDING = dict(mode="slide", crop_size=(32, 32), stride=(20, 20))


def config():
    """A small SETR with BatchNorm in its head."""
    model = dict(backbone=BACKBONE, decode_head=HEAD, train_cfg=dict(), test_cfg=ConfigDict(SLIDING))
    return copy.deepcopy(model)


@pytest.fixture(scope="module")
def pair():
    """mmseg's segmentor and ours with the same random weights."""
    init_default_scope("mmseg")  # made before the scope of an earlier test is left
    torch.manual_seed(0)
    theirs = EncoderDecoder(**config()).eval()
    ours = SlideEncoderDecoder(**config()).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def set_test_cfg(pair, **options):
    for model in pair:
        model.test_cfg = ConfigDict(SLIDING | options)
    return pair


def samples(number, size, **meta):
    meta = dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4) | meta
    return [SegDataSample(metainfo=meta) for _ in range(number)]


def assert_same(pair, images, given, atol=1e-5):
    """Both predict alike."""
    with torch.no_grad():
        results = [model.predict(images.clone(), copy.deepcopy(given)) for model in pair]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b.seg_logits.data, a.seg_logits.data, rtol=0, atol=atol)
        assert b.pred_sem_seg.data.dtype == a.pred_sem_seg.data.dtype
        assert b.pred_sem_seg.data.shape == a.pred_sem_seg.data.shape
        assert (b.pred_sem_seg.data == a.pred_sem_seg.data).float().mean() > 0.999


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (57, 91), (33, 100), (24, 70), (16, 24)], ids=str)
def test_logits_equal_mmsegs(pair, size):
    images = torch.randn(2, 3, *size)
    for given in (samples(2, size), None):
        assert_same(set_test_cfg(pair), images, given)


@pytest.mark.parametrize("crop", [(32, 32), (24, 40), (48, 8)], ids=str)
@pytest.mark.parametrize("stride", [(8, 8), (7, 13), (24, 8)], ids=str)
def test_strides_and_crops(pair, crop, stride):
    stride = tuple(min(pairs) for pairs in zip(stride, crop, strict=True))
    set_test_cfg(pair, crop_size=crop, stride=stride)
    assert_same(pair, torch.randn(1, 3, 61, 50), samples(1, (61, 50)))


def test_one_window_at_a_time_is_bitwise_equal(pair):
    assert_same(set_test_cfg(pair, accumulate_on="cpu"), torch.randn(1, 3, 57, 91), None, atol=0)


@pytest.mark.parametrize(
    "meta",
    [
        dict(ori_shape=(80, 61)),
        dict(flip=True, flip_direction="horizontal"),
        dict(flip=True, flip_direction="vertical", ori_shape=(30, 20)),
        dict(padding_size=[0, 3, 0, 7], ori_shape=(43, 48)),
        dict(img_padding_size=(1, 2, 3, 4)),
    ],
    ids=str,
)
def test_resized_mirrored_and_padded_images(pair, meta):
    assert_same(set_test_cfg(pair), torch.randn(2, 3, 50, 51), samples(2, (50, 51), **meta))


def test_whole_mode_is_mmsegs(pair):
    assert_same(set_test_cfg(pair, mode="whole"), torch.randn(2, 3, 40, 48), samples(2, (40, 48)))


def test_test_time_augmentation(pair):
    results = []
    for model in set_test_cfg(pair):
        torch.manual_seed(3)
        image = torch.randn(1, 3, 50, 44)
        views = [image, image.flip(-1)]
        given = [samples(1, (50, 44), flip=f, flip_direction="horizontal", img_path="a.png") for f in (False, True)]
        tta = SegTTAModel(module=model).eval()
        with torch.no_grad():
            results.append(tta.merge_preds([[p[0] for p in map(model.predict, views, given)]])[0])
    theirs, ours = (result.pred_sem_seg.data for result in results)
    assert (theirs == ours).float().mean() > 0.999


def test_one_copy_of_the_logits(pair):
    """mmseg's accumulation holds three: the sum, a padded window, the quotient."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        """Keeps all tensors in allocations of full-size logits; so no address is used twice."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = [one for one in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(one)]
            kept.extend(one for one in tensors if one.untyped_storage().nbytes() >= 4 * 5 * 120 * 200)
            return out

    counts = []
    for model in set_test_cfg(pair):
        kept = []
        with torch.no_grad(), Largest():
            model.predict(torch.randn(1, 3, 120, 200), samples(1, (120, 200)))
        counts.append(len({tensor.untyped_storage().data_ptr() for tensor in kept}))
    theirs, ours = counts
    assert ours == 1 and theirs > 3


def test_first_of_equal_classes():
    logits = torch.randint(0, 3, (19, 64, 200)).float()
    assert torch.equal(_classes(logits), logits.argmax(dim=0, keepdim=True))


def test_wrong_options_are_refused():
    asked = config()
    asked["test_cfg"].update(accumulate_on="disk")
    with pytest.raises(ValueError, match="accumulate_on='disk'"):
        SlideEncoderDecoder(**asked)


def test_gaps_are_refused_and_metas_left_as_they_are(pair):
    metas = [dict(ori_shape=(80, 80), img_shape=(80, 80))]
    refused = pytest.raises(ValueError, match="stride must not exceed")
    for stride, outcome in ((20, nullcontext()), (40, refused)):
        _, ours = set_test_cfg(pair, stride=(stride, stride))
        with torch.no_grad(), outcome:
            ours.slide_inference(torch.randn(1, 3, 80, 80), metas)
    assert metas == [dict(ori_shape=(80, 80), img_shape=(80, 80))]
