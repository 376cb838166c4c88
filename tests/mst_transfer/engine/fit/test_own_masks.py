"""``--masks``: a user's own images and label maps in any layout, seen as the same files in Cityscapes' layout are."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from small_sets import mask_file

from mst_transfer.cli.main import main
from mst_transfer.engine.fit.own_masks import say_pairs
from mst_transfer.engine.run import load_run_config

CONFIG = "seg_configs/mst_setr_pup_cityscapes.py"
RANDOM = ["--cfg-options", "model.backbone.checkpoint=None"]
PATTERNS = ["{split}/photo_{}.jpg", "{split}/label_{}.png"]
SPLITS = dict(train=("a", "b", "town/c"), val=("d",))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The same pictures in a layout of someone's and in Cityscapes' (``like_cityscapes``)."""
    rng = np.random.default_rng(0)
    for split, names in SPLITS.items():
        for name in names:
            files = [tmp_path / split / f"{kind}_{name}" for kind in ("photo", "label")]
            twins = [tmp_path / f"like_cityscapes/{kind}/{split}/{name}" for kind in ("leftImg8bit", "gtFine")]
            ids = rng.integers(0, 3, (24, 32)).astype(np.uint8)
            ids[0, 0] = 255
            for path, twin, picture, ends in (
                (files[0], twins[0], rng.integers(0, 256, (24, 32, 3)).astype(np.uint8), (".jpg", "_leftImg8bit.png")),
                (files[1], twins[1], ids, (".png", "_gtFine_labelTrainIds.png")),
            ):
                for place, end in ((path, ends[0]), (twin, ends[1])):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture).save(f"{place}{end}", format="PNG")
    return tmp_path


def patterns(root: Path) -> list[str]:
    return [str(root / pattern) for pattern in PATTERNS]


def test_samples_are_those_of_cityscapes_layout(own: Path, capsys) -> None:
    cfg = load_run_config(CONFIG, masks=patterns(own))
    said = capsys.readouterr().out
    assert "train: 3 images with masks" in said and "val: 1 images with masks" in said and "3 classes from" in said
    heads = [cfg.model.decode_head, *cfg.model.auxiliary_head]
    assert {head.num_classes for head in heads} == {3}
    twin = dict(type="BaseSegDataset", data_root=f"{own}/like_cityscapes", metainfo=dict(classes=("0", "1", "2")))
    twin |= dict(img_suffix="_leftImg8bit.png", seg_map_suffix="_gtFine_labelTrainIds.png")
    init_default_scope("mmseg")
    for split in ("train", "val", "test"):
        dataset = cfg[f"{split}_dataloader"].dataset
        theirs = "train" if split == "train" else "val"
        prefix = dict(img_path=f"leftImg8bit/{theirs}", seg_map_path=f"gtFine/{theirs}")
        ours, others = (
            DATASETS.build(one) for one in (dataset, dict(twin, data_prefix=prefix, pipeline=dataset.pipeline))
        )
        assert len(ours) == len(others) == len(SPLITS[theirs])
        for index in range(len(ours)):
            samples = []
            for data in (ours, others):
                np.random.seed(index)
                samples.append(data[index])
            assert (samples[0]["inputs"] == samples[1]["inputs"]).all()
            assert (samples[0]["data_samples"].gt_sem_seg.data == samples[1]["data_samples"].gt_sem_seg.data).all()


def test_recipes_of_other_data_take_them(own: Path) -> None:
    """ADE20K's pipelines say that 0 is nothing; CamVid's data set has classes of its own."""
    (own / "classes.txt").write_text("ground\nroof\ntree\n")
    for name in ("mst_linear_vit_small_ade20k", "mst_setr_pup_camvid"):
        cfg = load_run_config(f"seg_configs/{name}.py", masks=patterns(own))
        assert cfg.model.decode_head.num_classes == 3
        assert cfg.train_dataloader.dataset.metainfo.classes == ("ground", "roof", "tree")
        assert "reduce_zero_label" not in str([cfg.train_dataloader, cfg.val_dataloader, cfg.get("tta_pipeline")])


def test_both_forms(own: Path) -> None:
    photos, labels = patterns(own)
    four = [pattern.replace("{split}", split) for split in ("train", "val") for pattern in (photos, labels)]
    by_split = load_run_config(CONFIG, masks=[photos, labels]).val_dataloader
    assert load_run_config(CONFIG, masks=four).val_dataloader == by_split


def test_what_has_no_partner_is_counted_and_named(own: Path, capsys) -> None:
    (own / "train/label_b.png").unlink()
    (own / "val/label_x.png").write_bytes((own / "val/label_d.png").read_bytes())
    assert main(["check", CONFIG, "--masks", *patterns(own), *RANDOM]) == 0
    said = capsys.readouterr().out
    assert "train: 2 images with masks" in said and "1 images without a mask are left out, e.g." in said
    assert f"{own}/train/photo_b.jpg" in said and f"{own}/val/label_x.png" in said and "nothing stands" in said


def test_images_are_in_training_or_in_validation(tmp_path: Path) -> None:
    """``{}`` takes sub-folders too: what lies above the validation images holds them."""
    for kind, name in ((kind, name) for kind in ("images", "masks") for name in ("a", "b", "val/c")):
        path = tmp_path / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(path)
    above, below = ([f"{tmp_path}/{kind}/{part}{{}}.png" for kind in ("images", "masks")] for part in ("", "val/"))
    with pytest.raises(ValueError, match=r"1 images are in training and in validation, e.g. .*images/val/c.png"):
        load_run_config(CONFIG, masks=above + below)
    assert len(load_run_config(CONFIG, masks=below + below).train_dataloader.dataset.data_prefix) == 2  # asked for


def test_a_config_is_read_where_the_training_data_are_not(own: Path) -> None:
    cfg = load_run_config(CONFIG, masks=patterns(own))
    shutil.rmtree(own / "train")
    assert [line.partition(":")[0] for line in say_pairs(cfg)] == ["val"]


@pytest.mark.parametrize(("kind", "said"), [("colours", "3 channels"), ("another size", "is 9 × 8"), ("palette", "")])
def test_findings_name_the_users_own_file(kind: str, said: str, own: Path, capsys) -> None:
    (own / "classes.txt").write_text("ground\nroof\n")
    for split, names in SPLITS.items():
        for name in names:
            Image.new("RGB", (8, 8)).save(own / split / f"photo_{name}.jpg")
            (own / split / f"label_{name}.png").write_bytes(mask_file("gray"))
    (own / "train/label_a.png").write_bytes(mask_file(kind))
    assert main(["check", CONFIG, "--masks", *patterns(own), *RANDOM]) == bool(said)
    error = capsys.readouterr().err
    assert (f"{own}/train/label_a.png" in error) == bool(said) and said in error


@pytest.mark.parametrize(
    ("config", "masks", "said"),
    [
        (CONFIG, ["images/{}.jpg", "masks/{}.png"], "give patterns of images.*IMAGES MASKS twice"),
        (CONFIG, ["{split}/{}.jpg"], "give patterns of images"),
        (CONFIG, ["{split}/{}.jpg", "{split}/{}.png"], "no image has a mask"),
        ("det_configs/mst_maskrcnn_coco.py", PATTERNS, "one dataset of mmseg, it has CocoDataset"),
    ],
)
def test_refusals(config: str, masks: list[str], said: str, own: Path, monkeypatch) -> None:
    monkeypatch.chdir(own)
    with pytest.raises(ValueError, match=said):
        load_run_config(config, masks=masks)
