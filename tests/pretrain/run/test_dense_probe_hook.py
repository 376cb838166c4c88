"""Dense k-NN in a whole run: the figure is that of the teacher's file, and the best one is kept."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mst_transfer.checkpoint import read_backbone, save_backbone
from mst_transfer.probes.backbones import load_frozen
from mst_transfer.probes.dense_images import DenseImages
from mst_transfer.probes.dense_probe import dense_probe
from pretrain.run import dense_probe_hook
from pretrain.run.train import main


@pytest.fixture
def cities(tmp_path: Path) -> list[Path]:
    """Two folders of scenes of two classes in Cityscapes' layout: noise left and stripes right of a border."""
    random, folders = np.random.default_rng(0), []
    for city, count in (("a", 4), ("b", 2)):
        images, labels = (tmp_path / "leftImg8bit data" / kind / "train" / city for kind in ("leftImg8bit", "gtFine"))
        for folder in (images, labels):
            folder.mkdir(parents=True)
        for number in range(count):
            image = random.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            mask = np.zeros((32, 48), np.uint8)
            border = int(random.integers(16, 32))
            image[:, border:], mask[:, border:] = 200 * (np.arange(32) % 2)[:, None, None], 1
            mask[:2] = 255
            cv2.imwrite(str(images / f"{city}_{number}_leftImg8bit.png"), image)
            cv2.imwrite(str(labels / f"{city}_{number}_gtFine_labelTrainIds.png"), mask)
        folders.append(images)
    return folders


def test_the_best_for_dense_tasks_is_kept(tiny_config: Path, cities: list[Path], tmp_path: Path) -> None:
    hook = dict(type="pretrain.DenseProbeHook", train_root=str(cities[0]), val_root=str(cities[1]), interval=1)
    tiny_config.write_text(f"{tiny_config.read_text()}\ncustom_hooks = [{dict(hook, num_classes=2)!r}]\n")
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run")]) == 0
    log = next((tmp_path / "run").glob("*/*.log")).read_text()
    said = re.findall(r"dense k-NN after epoch (\d): mIoU ([\d.]+) %; best for dense tasks: (\S+) of epoch (\d)", log)
    assert [(line[0], line[2]) for line in said] == [("1", dense_probe_hook.BEST), ("2", dense_probe_hook.BEST)]
    best = max(said, key=lambda line: float(line[1]))
    assert said[-1][3] == best[0]
    file = tmp_path / "run" / dense_probe_hook.BEST
    assert read_backbone(file)[1].provenance["epoch"] == int(best[0])
    sets = [DenseImages(dense_probe_hook.labelled(str(city)), 2, 8) for city in cities]
    (again,) = dense_probe(load_frozen(file)[0], *sets, protocols=["dense_knn"])
    assert f"{again.miou:.2f}" == best[1] and again.miou > 30

    before = read_backbone(file)[0]
    provenance = dict(read_backbone(file)[1].provenance, epoch=7.0)
    save_backbone(file, before, replace(read_backbone(file)[1], provenance=provenance))
    from_before = ["--resume", str(tmp_path / "run" / "iter_4.pth")]
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run"), *from_before]) == 0
    aside = file.with_name("dense_best_teacher_of_epoch_7.safetensors")
    assert read_backbone(aside)[1].provenance["epoch"] == 7, "of steps that the resumed run has not taken"
    assert read_backbone(file)[1].provenance["epoch"] == int(best[0])


def test_pairs_and_what_is_missing(cities: list[Path], runner_of, tiny_config: Path) -> None:
    pairs = dense_probe_hook.labelled(str(cities[0]))
    assert len(pairs) == 4 and all(Path(labels).is_file() for _, labels in pairs)
    assert pairs[0][1].endswith("leftImg8bit data/gtFine/train/a/a_0_gtFine_labelTrainIds.png")
    Path(pairs[2][1]).unlink()
    with pytest.raises(FileNotFoundError, match="a_2_leftImg8bit.png has no label map"):
        dense_probe_hook.DenseProbeHook(*map(str, cities)).before_train(runner_of(tiny_config))
    with pytest.raises(ValueError, match="interval = 0"):
        dense_probe_hook.DenseProbeHook("a", "b", interval=0)
