"""The configs of docs/custom_data.md work as they stand there."""

import re

import pytest
from mmengine.registry import init_default_scope
from small_sets import save_mask, write_coco, write_masks

from mst_transfer.engine.run import load_run_config
from mst_transfer.engine.runner import TransferRunner
from mst_transfer.preflight.check import check_datasets


@pytest.fixture
def snippets(root, tmp_path):
    """File name → path of each config of the page, its data root exchanged."""
    text = (root / "docs" / "custom_data.md").read_text(encoding="utf-8")
    paths = {}
    for name, body in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, flags=re.S):
        paths[name] = tmp_path / name
        body = body.replace("/data/mine/", f"{tmp_path}/mine/").replace('"work_dirs/mine/teacher.safetensors"', "None")
        paths[name].write_text(body, encoding="utf-8")
    return paths


def test_the_detection_config(snippets, tmp_path):
    for split in ("train", "val"):
        path = write_coco(tmp_path / "mine", ("bolt", "nut"), split=split)
        path.rename(tmp_path / "mine" / f"{split}.json")
    cfg = load_run_config(str(snippets["my_det.py"]))
    assert cfg.model.roi_head.bbox_head.num_classes == cfg.model.roi_head.mask_head.num_classes == 2
    cfg.train_dataloader.dataset.filter_cfg = None  # images of 8 px
    summaries = check_datasets(cfg)
    assert [one.classes for one in summaries] == [("bolt", "nut")] * len(summaries) and len(summaries) == 2
    assert cfg.test_dataloader == cfg.val_dataloader and cfg.test_evaluator.ann_file == f"{tmp_path}/mine/val.json"


def test_the_segmentation_config(snippets, tmp_path):
    write_masks(tmp_path / "mine", values=(0, 1, 2))
    save_mask(tmp_path / "mine", 0, (0, 1, 3, 255))
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / "mine" / folder / "val").symlink_to(tmp_path / "mine" / folder / "train")
    cfg = load_run_config(str(snippets["my_seg.py"]))
    heads = [cfg.model.decode_head, *cfg.model.auxiliary_head]
    assert len(heads) == 4 and {head.num_classes for head in heads} == {4}
    assert [one.classes[3] for one in check_datasets(cfg)] == ["class 3"] * 2
    init_default_scope("mmseg")
    runner = TransferRunner.__new__(TransferRunner)
    runner.cfg, runner._work_dir = cfg, str(tmp_path)
    for split in ("train", "val", "test"):  # of which the last two read masks behind Resize
        loader = cfg[f"{split}_dataloader"] | dict(num_workers=0, persistent_workers=False)
        (sample,) = next(iter(runner.build_dataloader(loader)))["data_samples"]
        assert sample.gt_sem_seg.shape == (sample.img_shape if split == "train" else sample.ori_shape)
