"""``mst test --tta``: predictions averaged over sizes and mirror images, from the same checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mst_transfer.cli.main import main
from mst_transfer.engine.fit.devices import adapt_to_devices
from mst_transfer.engine.testing import with_augmentation

TTA = """
tta_model = dict(type="SegTTAModel")
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(size, size), keep_ratio=True) for size in {sizes}],
            [dict(type="RandomFlip", prob=prob, direction="horizontal") for prob in {flips}],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
"""


def build(cfg: Config) -> torch.nn.Module:
    from mmseg.registry import MODELS

    init_default_scope("mmseg")
    adapt_to_devices(cfg, world_size=1, on_cuda=False)
    torch.manual_seed(0)
    model: torch.nn.Module = MODELS.build(cfg.model).eval()
    return model


def test_one_size_without_a_mirror_image_is_the_plain_test(tiny_seg_config: Path, tmp_path: Path):
    tiny_seg_config.write_text(tiny_seg_config.read_text() + TTA.format(sizes=(32,), flips=(0.0,)))
    checkpoint = tmp_path / "model.pth"
    torch.save(dict(state_dict=build(Config.fromfile(tiny_seg_config)).state_dict(), meta={}), checkpoint)
    scores = []
    for options in ([], ["--tta"]):
        words = [str(tiny_seg_config), str(checkpoint), "--work-dir", str(tmp_path / f"test{len(options)}"), *options]
        assert main(["test", *words]) == 0
        results = json.loads((tmp_path / f"test{len(options)}" / "results.json").read_text())
        assert results["augmented"] == bool(options) and results["checkpoint"] == "random"
        scores.append(results["metrics"])
    assert scores[0] == scores[1] and 0 < scores[0]["aAcc"] < 100


def test_probabilities_are_averaged(tiny_seg_config: Path):
    """Against the mean of softmaxes of the plain model on each size, turned back by hand."""
    from mmseg.registry import DATASETS

    text = tiny_seg_config.read_text().replace("in_channels=32, in_index=3", "in_channels=4, in_index=0")
    tiny_seg_config.write_text(text + TTA.format(sizes=(32, 48), flips=(0.0, 1.0)))
    cfg = with_augmentation(Config.fromfile(tiny_seg_config))
    model = build(cfg)
    data = DATASETS.build(cfg.test_dataloader.dataset)[0]
    assert [tuple(image.shape[-2:]) for image in data["inputs"]] == [(32, 32), (32, 32), (48, 48), (48, 48)]
    batch = {key: [[value] for value in values] for key, values in data.items()}
    plain = model.module
    with torch.no_grad():  # logits about zero and far from it, so that the average decides
        plain.decode_head.conv_seg.weight.mul_(300)
        logits = plain.decode_head(plain.backbone((data["inputs"][0][[2, 1, 0]].float()[None] - 127) / 60))
        plain.decode_head.conv_seg.bias.copy_(-logits.mean((0, 2, 3)))
    (result,) = model.test_step(batch)
    total = torch.zeros(2, 32, 32)
    for index, image in enumerate(data["inputs"]):
        pixels = (image[[2, 1, 0]].float() - 127) / 60
        with torch.no_grad():
            logits = plain.decode_head(plain.backbone(pixels[None]))
        logits = torch.nn.functional.interpolate(logits, image.shape[-2:], mode="bilinear")
        logits = logits.flip(-1) if index % 2 else logits
        total += torch.nn.functional.interpolate(logits, (32, 32), mode="bilinear")[0].softmax(0)
    expected = total.argmax(0)
    assert torch.equal(result.pred_sem_seg.data[0], expected) and 0.1 < expected.float().mean() < 0.9


def test_what_cannot_be_augmented_is_refused(tiny_seg_config: Path, tmp_path: Path, capsys, root: Path, monkeypatch):
    checkpoint = tmp_path / "x.pth"
    torch.save({}, checkpoint)
    assert main(["test", str(tiny_seg_config), str(checkpoint), "--tta", "--check-only"]) == 1
    assert "no tta_pipeline and no tta_model" in capsys.readouterr().err
    detector = Config.fromfile(root / "det_configs" / "mst_maskrcnn_sample.py")
    with pytest.raises(ValueError, match="merges boxes only"):
        with_augmentation(detector)


def test_the_config_itself_stays_as_it_is(root: Path):
    cfg = Config.fromfile(root / "seg_configs" / "mst_setr_pup_cityscapes.py")
    before = cfg.pretty_text
    augmented = with_augmentation(cfg)
    assert cfg.pretty_text == before and augmented.model.module.type == cfg.model.type
    assert augmented.test_dataloader.dataset.pipeline == cfg.tta_pipeline
    assert augmented.val_dataloader.dataset.pipeline == cfg.val_dataloader.dataset.pipeline
