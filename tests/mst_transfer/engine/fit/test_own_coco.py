"""``--coco TRAIN.json VAL.json`` points a shipped config at a user's files."""

import pytest
from mmengine.config import Config
from small_sets import annotation, seg_config, write_coco

from mst_transfer.engine.fit import own_coco
from mst_transfer.engine.fit.own_coco import find_image_folder, learn_boxes_alone, use_coco_files
from mst_transfer.engine.run import load_run_config
from mst_transfer.preflight.check import check_datasets

CONFIG = "det_configs/mst_maskrcnn_coco.py"


def write(root):
    return [str(write_coco(root, ("bolt", "nut"), split=split, num_images=40)) for split in ("train", "val")]


def test_one_option_sets_data_classes_and_heads(tmp_path, capsys):
    files = write(tmp_path)
    cfg = load_run_config(CONFIG, coco=files, cfg_options={"model.backbone.checkpoint": None})
    assert "2 classes from" in capsys.readouterr().out
    for split, file, folder in (("train", files[0], "train"), ("val", files[1], "val"), ("test", files[1], "val")):
        dataset = cfg[f"{split}_dataloader"].dataset
        assert dataset.ann_file == file and dataset.data_prefix.img == f"{tmp_path}/{folder}/"
        assert dataset.metainfo.classes == ("bolt", "nut")
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == files[1]
    cfg.train_dataloader.dataset.filter_cfg = None  # the images are small
    train, val = check_datasets(cfg, ["train_dataloader", "val_dataloader"])
    assert (train.num_images, val.counts) == (40, [40, 0])


def test_a_config_with_classes_of_its_own_takes_those_of_the_files(tmp_path):
    cfg = load_run_config("det_configs/mst_maskrcnn_sample.py", coco=write(tmp_path))
    assert cfg.model.roi_head.bbox_head.num_classes == cfg.model.roi_head.mask_head.num_classes == 2


def test_a_config_that_leaves_its_classes_to_files_takes_those_of_others(tmp_path):
    config = tmp_path / "auto.py"
    loaders = "".join(
        f'{one}_dataloader = dict(dataset=dict(metainfo=dict(classes="auto")))\n' for one in ("train", "val", "test")
    )
    files = write(tmp_path)
    for heads in ("", "bbox_head=dict(num_classes=6), mask_head=dict(num_classes=6)"):  # those of files of its own
        model = f"model = dict(roi_head=dict({heads}))\n"
        config.write_text(f'_base_ = "mst_transfer::{CONFIG}"\n{loaders}{model}')
        cfg = load_run_config(str(config), coco=files)
        assert cfg.model.roi_head.bbox_head.num_classes == cfg.model.roi_head.mask_head.num_classes == 2


def test_ground_truth_of_the_samples_stays_theirs(tmp_path):
    """An evaluator without a file, beside a dataset of 16 images: it is not given the file of all 40."""
    cfg = load_run_config("det_configs/mst_maskrcnn_coco_mini_overfit16.py", coco=write(tmp_path))
    assert cfg.val_evaluator.ann_file is None and cfg.test_evaluator.ann_file is None
    (summary,) = check_datasets(cfg, ["val_dataloader"])
    assert any("16 of the 40 images are used, and the figures are of these" in text for text in summary.notes)


@pytest.mark.parametrize(
    "name", ["mst_maskrcnn_coco", "mst_cascade_maskrcnn_vit_small_coco", "mst_vitdet_small_coco_100e"]
)
def test_boxes_without_outlines_are_learned_by_a_detector_without_masks(name, tmp_path, capsys):
    """One outline in one of the files leaves the masks, and the check names what has none."""

    def files(**first):
        found = []
        for split in ("train", "val"):
            boxes = [annotation(number, image_id=number, segmentation=[]) for number in range(3)]
            boxes[0].update(first if split == "val" else {})
            found.append(str(write_coco(tmp_path, ("bolt", "nut"), split=split, annotations=boxes)))
        return found

    cfg = load_run_config(f"det_configs/{name}.py", coco=files(), cfg_options={"model.backbone.checkpoint": None})
    assert "the mask head is left out" in capsys.readouterr().out
    assert cfg.model.roi_head.mask_head is None and cfg.val_evaluator.metric == cfg.test_evaluator.metric == ["bbox"]
    assert not any("'with_mask': True" in str(cfg[f"{split}_dataloader"]) for split in ("train", "val", "test"))
    check_datasets(cfg, ["val_dataloader"])
    outlined = files(segmentation=[[1, 1, 4, 1, 4, 4]])
    cfg = load_run_config(f"det_configs/{name}.py", coco=outlined, cfg_options={"model.backbone.checkpoint": None})
    assert cfg.model.roi_head.mask_head and "mask head" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="without a segmentation"):
        check_datasets(cfg, ["val_dataloader"])


@pytest.mark.parametrize(
    ("metric", "left"),
    [("segm", ["bbox"]), (["segm"], ["bbox"]), (["proposal", "segm"], ["proposal"]), ("bbox", "bbox")],
)
def test_metrics_that_score_no_masks_stay_when_masks_are_left_out(metric, left, tmp_path):
    boxes = [annotation(0, segmentation=[])]
    dataset = dict(type="CocoDataset", ann_file=str(write_coco(tmp_path, annotations=boxes)), pipeline=[])
    evaluators = [dict(type="CocoMetric", metric=metric), dict(type="DumpDetResults")]
    model = dict(roi_head=dict(mask_head=dict(type="FCNMaskHead")))
    cfg = Config(dict(model=model, val_dataloader=dict(dataset=dataset), val_evaluator=evaluators))
    assert len(list(learn_boxes_alone(cfg))) == 1 and cfg.model.roi_head.mask_head is None
    assert cfg.val_evaluator == [dict(type="CocoMetric", metric=left), dict(type="DumpDetResults")]


def test_an_empty_file_is_left_to_the_checks(tmp_path):
    (tmp_path / "empty.json").touch()
    dataset = dict(type="CocoDataset", ann_file=str(tmp_path / "empty.json"))
    model = dict(roi_head=dict(mask_head=dict(type="FCNMaskHead")))
    assert not list(learn_boxes_alone(Config(dict(model=model, val_dataloader=dict(dataset=dataset)))))


def test_folders_may_be_named(tmp_path):
    files = write(tmp_path)
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"no folder beside it has .*val.json names, e.g. 0.png.*--coco-images"):
        load_run_config(CONFIG, coco=files)
    folders = [str(tmp_path / "train"), str(tmp_path / "elsewhere")]
    cfg = load_run_config(CONFIG, coco=files, coco_images=folders)
    assert cfg.val_dataloader.dataset.data_prefix.img == f"{tmp_path}/elsewhere/"


@pytest.mark.parametrize("layout", ["", "images", "train", "images/train", "train/images"])
def test_usual_layouts_are_found(tmp_path, layout):
    path = write_coco(tmp_path, split="train", num_images=2)
    path = path.rename(path.with_name("instances_train.json"))
    images = sorted((tmp_path / "train").iterdir())
    folder = tmp_path / layout
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        image.rename(folder / image.name)
    assert find_image_folder(str(path)) == str(folder)


def test_several_folders_are_ambiguous(tmp_path):
    path = write_coco(tmp_path)
    (tmp_path / "images").mkdir()
    for image in (tmp_path / "train").iterdir():
        (tmp_path / "images" / image.name).write_bytes(image.read_bytes())
    with pytest.raises(ValueError, match="more than one folder has the images"):
        find_image_folder(str(path))


def test_names_of_large_files_are_found_without_parsing(tmp_path, monkeypatch):
    path = str(write_coco(tmp_path))
    names = own_coco._some_file_names(path)
    monkeypatch.setattr(own_coco, "MAX_BYTES_TO_PARSE", 10)
    monkeypatch.setattr(own_coco, "load_json", None)
    assert own_coco._some_file_names(path) == names == ["0.png", "1.png", "2.png"]


def test_what_does_not_fit_is_refused(tmp_path):
    files = write(tmp_path)
    with pytest.raises(FileNotFoundError, match="--coco: nowhere.json does not exist"):
        use_coco_files(Config(dict()), ["nowhere.json", files[1]])
    with pytest.raises(ValueError, match="must have one CocoDataset of mmdet, it has BaseSegDataset"):
        use_coco_files(seg_config(tmp_path), files)
