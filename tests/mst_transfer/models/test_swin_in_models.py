"""A detector of mmdet and a segmentor of mmseg train with TimmSwin, as the shipped configs build them."""

import importlib
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import InstanceData, PixelData

from mst_transfer.engine.fit.devices import adapt_to_devices

ROOT = Path(__file__).resolve().parents[3]
SMALL = dict(checkpoint=None, drop_path_rate=0.0, embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4))
WIDTHS = [8, 16, 32, 64]
OPTIMIZER = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.9),
)


@pytest.fixture
def build():
    """Builds the model of a base config in its library's scope, with changes."""
    before = DefaultScope.get_current_instance()

    def make(library: str, name: str, changes: dict):
        cfg = Config.fromfile(ROOT / name)
        cfg.merge_from_dict(dict(model=dict(backbone=SMALL) | changes))
        adapt_to_devices(cfg, world_size=1, on_cuda=False)
        init_default_scope(library)
        importlib.import_module(f"{library}.models")
        torch.manual_seed(0)
        model = importlib.import_module(f"{library}.registry").MODELS.build(cfg.model)
        model.init_weights()
        return model.train()

    yield make
    init_default_scope(before.scope_name if before else "mmengine")


def train_step(model, inputs, samples) -> dict[str, torch.Tensor]:
    """One step with layer decay; asserts that it moves every block and returns the losses."""
    optimizer = build_optim_wrapper(model, OPTIMIZER)
    before = {name: parameter.detach().clone() for name, parameter in model.backbone.named_parameters()}
    losses = model.train_step(dict(inputs=inputs, data_samples=samples), optimizer)
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    for name, parameter in model.backbone.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    rates = sorted({round(group["lr"], 12) for group in optimizer.optimizer.param_groups})
    assert rates == pytest.approx([1e-3 * 0.9**k for k in range(9, -1, -1)])
    return losses


def test_mask_rcnn_takes_a_step(build):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    changes = dict(
        neck=dict(in_channels=WIDTHS, out_channels=16),
        rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=16),
            mask_roi_extractor=dict(out_channels=16),
            bbox_head=dict(in_channels=16, fc_out_channels=16),
            mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1),
        ),
    )
    model = build("mmdet", "det_configs/_base_/maskrcnn_swin_tiny.py", changes)
    sample = DetDataSample(metainfo=dict(img_shape=(90, 120), ori_shape=(90, 120), batch_input_shape=(96, 128)))
    masks = torch.zeros(1, 90, 120).numpy().astype("uint8")
    masks[0, 10:60, 20:70] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 10.0, 70.0, 60.0]]), labels=torch.tensor([3]), masks=BitmapMasks(masks, 90, 120)
    )
    losses = train_step(model, [torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)], [sample])
    assert {"loss_rpn_cls", "loss_bbox", "loss_mask"} <= set(losses)


def test_upernet_takes_a_step(build):
    from mmseg.structures import SegDataSample

    changes = dict(
        data_preprocessor=dict(size=(96, 128)),
        decode_head=dict(in_channels=WIDTHS, channels=16, num_classes=5),
        auxiliary_head=dict(in_channels=WIDTHS[2], channels=16, num_classes=5),
    )
    model = build("mmseg", "seg_configs/_base_/upernet_swin_tiny.py", changes)
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, 90, 120))), metainfo=dict(img_shape=(90, 120)))
        for _ in range(2)
    ]
    images = [torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8) for _ in range(2)]
    losses = train_step(model, images, samples)
    assert {"decode.loss_ce", "aux.loss_ce"} <= set(losses)
