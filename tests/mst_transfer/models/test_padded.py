"""Logits lie where the cells lie, whatever the image's size: in windows and whole images, in training and in tests."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from planted import IGNORED, paint, planted

from mst_transfer.engine.fit.devices import adapt_to_devices
from mst_transfer.models.segmentors import SlideEncoderDecoder

NUM_CLASSES = 5
VIT = dict(arch="vit_tiny_patch16_224", img_size=(64, 64), embed_dim=16, depth=4, num_heads=2, checkpoint=None)
SWIN = dict(type="mst_transfer.TimmSwin", embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
BACKBONES = {
    "patch_8": dict(type="mst_transfer.TimmViT", patch_size=8, **VIT),
    "patch_14": dict(type="mst_transfer.TimmViT", **(VIT | dict(patch_size=14, img_size=(56, 56)))),
    "patch_16": dict(type="mst_transfer.TimmViT", **VIT),
    "pyramid": dict(type="mst_transfer.TimmViTPyramid", **VIT),
    "pyramid_14": dict(type="mst_transfer.TimmViTPyramid", **(VIT | dict(patch_size=14, img_size=(56, 56)))),
    "swin": SWIN,
    "swin_2_stages": SWIN | dict(out_indices=(0, 1)),
}
DIVISORS = dict(patch_8=8, patch_14=14, patch_16=16, pyramid=32, pyramid_14=32, swin=32, swin_2_stages=8)
WHOLE, SLIDE = dict(mode="whole"), dict(mode="slide", crop_size=(100, 100), stride=(67, 67))
CROP = (90, 150)


def head(**options: Any) -> dict:
    options |= dict(type="FCNHead", in_channels=16, channels=16, num_convs=0, concat_input=False, dropout_ratio=0.0)
    loss = dict(type="CrossEntropyLoss")
    return options | dict(num_classes=NUM_CLASSES, align_corners=False, loss_decode=loss)


def build(kind: type = SlideEncoderDecoder, backbone: str = "patch_16", test_cfg: dict = WHOLE) -> Any:
    torch.manual_seed(0)
    preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True, size=CROP)
    return kind(
        backbone=copy.deepcopy(BACKBONES[backbone]),
        decode_head=head(in_index=0),
        auxiliary_head=head(in_index=1) if backbone.startswith("patch") else None,
        data_preprocessor=dict(type="mmseg.SegDataPreProcessor", **preprocessor),
        train_cfg=dict(),
        test_cfg=ConfigDict(test_cfg),
    )


def bands(height: int, width: int, cell: int, seed: int, ignored: bool = False) -> np.ndarray:
    """Stripes whose borders lie on multiples of ``cell``: horizontal, or vertical for odd seeds."""
    side = width if seed % 2 else height
    values = np.random.default_rng(seed).permutation(np.arange(side // cell + 1) % NUM_CLASSES).astype(np.uint8)
    values[-1] = IGNORED if ignored else values[-1]
    line = values.repeat(cell)[:side]
    return np.broadcast_to(line if seed % 2 else line[:, None], (height, width)).copy()


def batch_of(labels: list[np.ndarray], mirrored: bool = False) -> dict:
    samples, images = [], []
    for one in labels:
        sample = SegDataSample(metainfo=dict(ori_shape=one.shape, img_shape=one.shape, img_path="a.png"))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(one.astype(np.int64))[None])
        image = torch.from_numpy(paint(one, NUM_CLASSES)).permute(2, 0, 1)
        if mirrored:
            image = image.flip(2)
            sample.set_metainfo(dict(flip=True, flip_direction="horizontal"))
        samples.append(sample)
        images.append(image)
    return dict(inputs=images, data_samples=samples)


def wrong(model: Any, labels: list[np.ndarray], cells: bool = False, mirrored: bool = False) -> int:
    """Number of pixels that a planted answer loses."""
    with torch.no_grad(), planted(model.eval(), cells):
        results = model.test_step(batch_of(labels, mirrored))
    found = np.stack([result.pred_sem_seg.data[0].numpy() for result in results])
    return int((found != np.stack(labels)).sum())


@pytest.mark.parametrize(
    ("test_cfg", "size"), [(WHOLE, (90, 150)), (WHOLE, (37, 61)), (SLIDE, (203, 101))], ids=["whole", "small", "slide"]
)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_pixel_moves(backbone: str, test_cfg: dict, size: tuple[int, int]) -> None:
    model = build(backbone=backbone, test_cfg=test_cfg)
    labels = [bands(*size, cell=1, seed=seed) for seed in (0, 1, 2)]
    assert wrong(model, labels) == wrong(model, labels, mirrored=True) == 0
    finest = model.backbone.patch_size if backbone.startswith("patch") else 4
    if test_cfg is WHOLE:  # mmseg's windows begin in the middle of a cell
        assert wrong(model, [bands(*size, cell=finest, seed=seed) for seed in (0, 1, 2)], cells=True) == 0


def test_the_planted_answer_finds_stretched_logits() -> None:
    """mmseg's own segmentor moves pixels, unless its preprocessor pads to whole patches; both ways may be taken."""
    labels = [bands(90, 150, cell=1, seed=0)]
    assert wrong(build(EncoderDecoder), labels) > 1000
    for kind in (EncoderDecoder, SlideEncoderDecoder):
        model = build(kind)
        model.data_preprocessor.test_cfg = dict(size_divisor=16)
        assert wrong(model, labels) == 0


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_map_covers_the_padded_image(backbone: str) -> None:
    """So no head that joins maps of several strides stretches one against another."""
    model = build(backbone=backbone)
    assert model.size_divisor == DIVISORS[backbone]
    seen: list[torch.Size] = []
    model.backbone.register_forward_hook(
        lambda _, inputs, maps: seen.extend([inputs[0].shape[2:], *(one.shape[2:] for one in maps)])
    )
    with torch.no_grad():
        logits = model.eval().encode_decode(torch.randn(1, 3, 131, 75), [dict(img_shape=(131, 75))])
    padded, *maps = seen
    assert logits.shape == (1, NUM_CLASSES, 131, 75)
    assert all(0 <= new - old < model.size_divisor for new, old in zip(padded, (131, 75), strict=True))
    strides = {one[0] / padded[0] for one in maps} | {one[1] / padded[1] for one in maps}
    assert len(strides) == len({one[0] for one in maps}) and all((1 / stride).is_integer() for stride in strides)


# ---- training


def test_training_does_not_move_pixels_either() -> None:
    """An image that fills a crop of no whole patches, and one that the preprocessor has to pad."""
    labels = [bands(*CROP, cell=1, seed=0, ignored=True), bands(70, 150, cell=1, seed=2)]
    accuracies = {}
    for kind in (EncoderDecoder, SlideEncoderDecoder):
        model = build(kind).eval()
        model.auxiliary_head = None
        with torch.no_grad(), planted(model):
            losses = model(**model.data_preprocessor(batch_of(labels), training=True), mode="loss")
        accuracies[kind] = float(losses["decode.acc_seg"])
    assert accuracies[SlideEncoderDecoder] > 99.99 and accuracies[EncoderDecoder] < 95


@pytest.mark.parametrize("backbone", ["patch_16", "swin"])
def test_losses_are_those_of_padded_crops(backbone: str) -> None:
    """Every head's loss and every gradient against mmseg's on crops and label maps that were padded by hand."""
    theirs, ours = build(EncoderDecoder, backbone), build(SlideEncoderDecoder, backbone)
    ours.load_state_dict(theirs.state_dict())
    labels = [bands(*CROP, cell=1, seed=seed, ignored=True) for seed in (0, 1)]
    data = ours.data_preprocessor(batch_of(labels), training=True)
    kept = [sample.gt_sem_seg.data.clone() for sample in data["data_samples"]]
    found = ours(**data, mode="loss")
    assert all(torch.equal(a, b.gt_sem_seg.data) for a, b in zip(kept, data["data_samples"], strict=True))
    theirs.data_preprocessor.size = (96, 160)
    expected = theirs(**theirs.data_preprocessor(batch_of(labels), training=True), mode="loss")
    assert found.keys() == expected.keys() and any("aux" in key for key in found) == (backbone != "swin")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    for losses in (found, expected):
        sum(value for key, value in losses.items() if "loss" in key).backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


# ---- any config


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_config_with_mmsegs_segmentor_gets_ours(wrapped: bool) -> None:
    model = dict(type="EncoderDecoder", backbone=dict(BACKBONES["patch_16"]), decode_head=head(in_index=0))
    cfg = Config(dict(model=dict(type="SegTTAModel", module=model) if wrapped else model))
    (notice,) = adapt_to_devices(cfg, world_size=1, on_cuda=False)
    assert (cfg.model.module if wrapped else cfg.model).type in notice
    assert type(ROOT.build(cfg.model.module if wrapped else cfg.model)) is SlideEncoderDecoder
    cfg = Config(dict(model=dict(type="EncoderDecoder", backbone=dict(type="ResNet", depth=18))))
    assert adapt_to_devices(cfg, world_size=1, on_cuda=False) == [] and cfg.model.type == "EncoderDecoder"
