"""A COCO set of small squares as YOLO, Pascal VOC and CVAT write it: a reader's labels. Outlines are the boxes'."""

import json
from pathlib import Path


def write_labels(coco: Path, out: Path) -> None:
    """``data.yaml``, ``VOCdevkit/VOC2012`` and ``{train,val}.xml`` in ``out`` from ``coco/{annotations,train,val}``."""
    names, voc = [], out / "VOCdevkit" / "VOC2012"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    for split in ("train", "val"):
        content = json.loads((coco / "annotations" / f"instances_{split}.json").read_text())
        names, stems, cvat = [one["name"] for one in content["categories"]], [], ""
        for folder in ("images", "labels"):
            (out / "yolo" / folder / split).mkdir(parents=True)
        for image in content["images"]:
            stem, side = f"{split}_{Path(image['file_name']).stem}", image["width"]
            yolo, objects, polygons = "", "", ""
            for one in content["annotations"]:
                if one["image_id"] != image["id"]:
                    continue
                (x, y, width, height), name = one["bbox"], names[one["category_id"] - 1]
                corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
                yolo += (
                    " ".join([str(one["category_id"] - 1), *(f"{v / side:.6f}" for xy in corners for v in xy)]) + "\n"
                )
                points = ";".join(f"{a},{b}" for a, b in corners)
                polygons += f'<polygon label="{name}" points="{points}"/>'
                ends = zip(("xmin", "ymin", "xmax", "ymax"), (x + 1, y + 1, x + width, y + height), strict=True)
                box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in ends)
                objects += f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
            size = f"<size><width>{side}</width><height>{side}</height><depth>3</depth></size>"
            (voc / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>"
            )
            for place in (voc / "JPEGImages" / f"{stem}.jpg", out / "yolo" / "images" / split / f"{stem}.jpg"):
                place.symlink_to((coco / split / image["file_name"]).resolve())
            (out / "yolo" / "labels" / split / f"{stem}.txt").write_text(yolo)
            cvat += f'<image name="{split}/{image["file_name"]}" width="{side}" height="{side}">{polygons}</image>'
            stems.append(stem)
        (voc / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        known = "".join(f"<label><name>{name}</name></label>" for name in names)
        (out / f"{split}.xml").write_text(
            f"<annotations><meta><task><labels>{known}</labels></task></meta>{cvat}</annotations>"
        )
    (out / "data.yaml").write_text(f"path: {out / 'yolo'}\ntrain: images/train\nval: images/val\nnames: {names}\n")
