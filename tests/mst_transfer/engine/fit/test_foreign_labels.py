"""What becomes of YOLO's, VOC's and CVAT's labels in COCO's format, against plain sums and hotcoco's reader."""

import json
from pathlib import Path

import cv2
import hotcoco
import numpy as np
import pytest
from PIL import Image

from mst_transfer.cli.main import main
from mst_transfer.engine.fit.foreign_labels import write_as_coco
from mst_transfer.engine.run import load_run_config

SIZES = {"train/a": (40, 20), "train/sub/b": (50, 30), "train/c": (16, 16), "val/a": (60, 40)}  # width, height
LINES = {
    "train/a": ["0 0.5 0.5 0.5 0.5", "1 0.25 0.5 0.5 1.0", "0 0.5 0.5 0.5 0.5"],  # the last is there twice
    "train/sub/b": ["", "1 0.1 0.1 0.5 0.1 0.5 0.9"],
    "val/a": ["1 0.5 0.5 1.0 1.0"],
}


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A folder as Ultralytics writes it, with an image without labels."""
    for name, (width, height) in SIZES.items():
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
    for name, lines in LINES.items():
        path = tmp_path / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    write_yaml(tmp_path)
    return tmp_path / "data.yaml"


def write_yaml(folder: Path, **changes: object) -> Path:
    content = dict(train="images/train", val="images/val", names={0: "nut", 1: "bolt"}) | changes
    path = folder / "data.yaml"
    path.write_text(
        "".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items())
        .replace('"0"', "0")
        .replace('"1"', "1")
    )
    return path


def read(kind: str, sources: list, out: Path) -> tuple[dict, dict]:
    files, _ = write_as_coco(kind, list(map(str, sources)), out)
    train, val = (json.loads(Path(file).read_text()) for file in files)
    return train, val


def by_name(content: dict) -> dict[str, list[dict]]:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[dict]] = {name: [] for name in names.values()}
    for one in content["annotations"]:
        found[names[one["image_id"]]].append(one)
    return found


def test_yolo(yolo: Path, tmp_path: Path, capsys) -> None:
    train, val = read("yolo", [yolo], tmp_path / "out")
    assert [one["name"] for one in train["categories"]] == ["nut", "bolt"] and val["categories"] == train["categories"]
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in train["images"]}
    assert sizes == {"a.png": (40, 20), "c.png": (16, 16), "sub/b.png": (50, 30)}
    found = by_name(train)
    assert [(one["category_id"], one["bbox"]) for one in found["a.png"]] == [(1, [10, 5, 20, 10]), (2, [0, 0, 20, 20])]
    (triangle,) = found["sub/b.png"]
    assert triangle["bbox"] == pytest.approx([5, 3, 20, 24]) and triangle["area"] == pytest.approx(20 * 24 / 2)
    assert np.ravel(triangle["segmentation"]) == pytest.approx([5, 3, 25, 3, 25, 27]) and not found["c.png"]
    assert "train: 3 images (1 without objects), 3 objects of 2 classes, 1 with outlines" in capsys.readouterr().out
    peer = hotcoco.COCO.from_yolo(make_flat(tmp_path / "flat"), str(yolo.parent / "images/train")).dataset
    boxes = [one["bbox"] for one in peer["annotations"][:2]]
    assert np.ravel(boxes) == pytest.approx(np.ravel([one["bbox"] for one in found["a.png"]]))


@pytest.mark.parametrize("points", ["0.1 0.1 0.2 0.2", "0.1 0.1 2 0.2 0.2 0 0.3 0.3 1 0 0 0"])
def test_key_points_are_no_outline(points: str, yolo: Path, tmp_path: Path) -> None:
    (tmp_path / "labels/train/sub/b.txt").write_text(f"0 0.75 0.75 0.2 0.3 {points}")  # of 50 × 30
    (one,) = by_name(read("yolo", [write_yaml(tmp_path, kpt_shape=[2, 2])], tmp_path / "out")[0])["sub/b.png"]
    assert one["bbox"] == pytest.approx([32.5, 18, 10, 9]) and "segmentation" not in one


def test_the_area_of_an_outline(yolo: Path, tmp_path: Path) -> None:
    outline = np.array([[0.1, 0.2], [0.7, 0.1], [0.9, 0.6], [0.5, 0.95], [0.2, 0.8]])
    (tmp_path / "labels/train/sub/b.txt").write_text("0 " + " ".join(map(str, outline.ravel())))
    (one,) = by_name(read("yolo", [yolo], tmp_path / "out")[0])["sub/b.png"]
    assert one["area"] == pytest.approx(cv2.contourArea((outline * [50, 30]).astype(np.float32)))


def make_flat(folder: Path) -> str:
    """The form that hotcoco reads, of one image, without the line that is there twice."""
    folder.mkdir()
    (folder / "data.yaml").write_text('names: ["nut", "bolt"]')
    (folder / "a.txt").write_text("\n".join(LINES["train/a"][:2]))
    return str(folder)


def test_yolo_lists_roots_and_exif(yolo: Path, tmp_path: Path) -> None:
    """Lists of images, ``path``, names as a list, a parent that is none, and a photo that EXIF turns."""
    turned = Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images/train/turned.jpg", exif=exif)
    (tmp_path / "labels/train/turned.txt").write_text("0 0.5 0.5 1 0.5")
    (tmp_path / "train.txt").write_text("./images/train/turned.jpg\nimages/train/a.png\n\nimages/train/a.png\n")
    changes = dict(path=str(tmp_path), train=["train.txt"], val="../images/val", names=["nut", "bolt"], nc=2)
    train, val = read("yolo", [write_yaml(tmp_path, **changes)], tmp_path / "out")
    assert [image["file_name"] for image in train["images"]] == ["turned.jpg", "a.png"] and len(val["images"]) == 1
    assert by_name(train)["turned.jpg"][0]["bbox"] == [0, 10, 20, 20]  # of 20 × 40


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 0.5 0.5 0.5 0.5", "class 2 is none of 0 … 1"),
        ("0 0.5 0.5 0.5", "3 numbers after the class"),
        ("0 0.5 0.5 0.5 0.5 0.9", "5 numbers after the class"),
        ("0 320 240 100 80", "numbers outside 0 … 1"),
        ("0 0.5 nan 0.5 0.5", "numbers outside 0 … 1"),
        ("0 0.5 0.5 0 0.5", "a width or height of 0"),
        ("nut 0.5 0.5 0.5 0.5", "could not convert string to float: 'nut'"),
    ],
)
def test_a_wrong_line_is_named(yolo: Path, tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "labels/train/a.txt"
    path.write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(ValueError) as error:
        read("yolo", [yolo], tmp_path / "out")
    assert f"{path}:2: " in str(error.value) and said in str(error.value) and "class cx cy" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(train="images/trian"), "images/trian is not there"),
        (dict(names={0: "nut", 2: "bolt"}), "numbers from 0"),
        (dict(nc=3), "nc is 3, and names are 2"),
        (dict(val=None), "must hold train, val and names"),
        (dict(val="images/train/sub", names=["nut"]), "class 1 is none of 0 … 0"),
    ],
)
def test_a_wrong_yaml_is_named(yolo: Path, tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read("yolo", [write_yaml(tmp_path, **changes)], tmp_path / "out")


def test_a_set_without_objects_is_refused(yolo: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "labels/val").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"val has 1 images \(1 without objects\), 0 objects .*nothing to learn from"):
        read("yolo", [yolo], tmp_path / "out")


VOC = """<annotation><filename>{name}.png</filename><size><width>40</width><height>20</height><depth>3</depth></size>
<object><name>{label}</name><bndbox><xmin>1</xmin><ymin>11</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object></annotation>"""


def test_voc(tmp_path: Path) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for name, label in (("a", "dog"), ("b", "cat"), ("c", "dog")):
        cv2.imwrite(str(tmp_path / f"JPEGImages/{name}.png"), np.zeros((20, 40, 3), np.uint8))
        (tmp_path / f"Annotations/{name}.xml").write_text(VOC.format(name=name, label=label))
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    with pytest.raises(FileNotFoundError, match="val.txt is not there"):
        read("voc", [tmp_path], tmp_path / "out")
    (tmp_path / "ImageSets/Main/val.txt").write_text("c\n")
    train, val = read("voc", [tmp_path], tmp_path / "out")
    assert [one["name"] for one in train["categories"]] == ["cat", "dog"] and val["categories"] == train["categories"]
    assert {name: [one["bbox"] for one in some] for name, some in by_name(train).items()} == {
        "a.png": [[0, 10, 10, 10]], "b.png": [[0, 10, 10, 10]]}  # fmt: skip
    assert list(by_name(val)) == ["c.png"]


@pytest.mark.parametrize("flipped", ["a.png", "a.jpg"])
def test_two_voc_files_of_one_image_are_refused(tmp_path: Path, flipped: str) -> None:
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for name, image in (("b", "b.png"), ("a_flip", flipped), ("a", "a.png")):
        text = VOC.format(name=name, label="dog").replace(f"{name}.png", image)
        (tmp_path / f"Annotations/{name}.xml").write_text(text)
    for split, name in (("train", "a"), ("val", "b")):
        (tmp_path / f"ImageSets/Main/{split}.txt").write_text(name)
    with pytest.raises(ValueError, match=r"Annotations: a.xml, a_flip.xml have a <filename> of the same image, a: "):
        read("voc", [tmp_path], tmp_path / "out")


CVAT = """<annotations><meta><task><labels><label><name>car</name></label></labels></task></meta>
<image id="0" name="x/a.png" width="40" height="20"><polygon label="car" points="1,1;20,1;20,11"/>
<polyline label="car" points="1,1;2,2"/></image></annotations>"""


def test_cvat(tmp_path: Path) -> None:
    (tmp_path / "images/x").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images/x/a.png"), np.zeros((20, 40, 3), np.uint8))
    (tmp_path / "t.xml").write_text(CVAT)
    with pytest.warns(UserWarning, match="skipped 1 unsupported"):
        files, folders = write_as_coco("cvat", [str(tmp_path / "t.xml")] * 2, tmp_path / "out")
    (one,) = json.loads(Path(files[0]).read_text())["annotations"]
    assert one["bbox"] == [1, 1, 19, 10] and one["area"] == pytest.approx(19 * 10 / 2)
    assert folders[0] == str(tmp_path / "images/x")


BOX = '<box label="car" xtl="1" ytl="1" xbr="9" ybr="6"{rotation}/>'


@pytest.mark.parametrize("rotation", ["", ' rotation="0.0"', ' rotation="360"'])
def test_cvat_boxes(tmp_path: Path, rotation: str) -> None:
    (tmp_path / "t.xml").write_text(CVAT.replace("<polyline", f"{BOX.format(rotation=rotation)}<polyline"))
    train, _ = read("cvat", [tmp_path / "t.xml"] * 2, tmp_path / "out")
    assert [one["bbox"] for one in train["annotations"]] == [[1, 1, 19, 10], [1, 1, 8, 5]]


def test_rotated_cvat_boxes_are_refused(tmp_path: Path) -> None:
    boxes = "".join(BOX.format(rotation=f' rotation="{angle}"') for angle in ("0", "45.00", "315"))
    (tmp_path / "t.xml").write_text(CVAT.replace("<polyline", f"{boxes}<polyline"))
    said = r"t.xml: 2 boxes are rotated, the first in image x/a.png; .* 0 .*convert them to polygons in CVAT"
    with pytest.raises(ValueError, match=said):
        read("cvat", [tmp_path / "t.xml"] * 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'<!DOCTYPE a [<!ENTITY b "c">]>{CVAT}', "t.xml declares an entity, b"),
        (CVAT.removesuffix("</annotations>"), "t.xml is no XML: no element found"),
    ],
)
def test_wrong_cvat_files_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.xml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read("cvat", [tmp_path / "t.xml"] * 2, tmp_path / "out")


def test_the_verbs_take_them(yolo: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Heads and cards on a YOLO folder, on the command line and in Python; two kinds of labels at once are refused."""
    monkeypatch.chdir(tmp_path)
    config, random = "det_configs/mst_maskrcnn_sample.py", {"model.backbone.checkpoint": None}
    words = ["check", config, "--yolo", "data.yaml", "--cfg-options", "model.backbone.checkpoint=None"]
    main(words)
    out = capsys.readouterr().out
    assert "3 images (1 without objects), 3 objects" in out and "bolt" in out
    assert Path("work_dirs/mst_maskrcnn_sample/labels/train.json").is_file()
    assert main([*words, "--voc", str(tmp_path)]) == 1
    assert "give one of --coco, --yolo, --voc, --cvat" in capsys.readouterr().err
    cfg = load_run_config(config, yolo="data.yaml", work_dir="mine", cfg_options=random)
    assert cfg.train_dataloader.dataset.ann_file == str(Path("mine/labels/train.json"))
    assert cfg.train_dataloader.dataset.metainfo.classes == ("nut", "bolt")
    for name in ("train/a", "train/sub/b", "train/c", "val/a", "val/c"):  # of 32 px and more, outlined
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.zeros((64, 64, 3), np.uint8))
        (tmp_path / f"labels/{name}.txt").write_text(LINES["train/sub/b"][1])
    card = ["evaluate", "random:vit_tiny_patch16_224", "--yolo", "data.yaml", "--out", "card", "--dry-run"]
    assert main(card) == 0
    assert "objects: 3 training and 2 validation images, 3 classes" in capsys.readouterr().out
