"""A card's folder with its page, made once; a pre-training's work directory; a world to make cards in."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from example_card import EVIL, write_example
from small_vit import SMALL, make_metadata, make_vit

from mst_transfer.card.page import write_page
from mst_transfer.checkpoint import save_backbone
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data


def write_pretraining(folder: Path) -> Path:
    """What a pre-training of five logged steps leaves."""
    log = folder / "20250101_110000" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    rows = [
        {"step": 10 * n, "loss": 7 - n, "loss_dino": 6 - n, "teacher_entropy": 5.5, "lr": n * 1e-3} for n in range(1, 6)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run_config.json").write_text('{"model": {"head": {"out_dim": 512}}}')
    (folder / "pictures").mkdir()
    cv2.imwrite(str(folder / "pictures" / "mask.png"), np.eye(40, dtype=np.uint8) * 255)
    entries = [{"file": "mask.png", "title": f"Importance {EVIL}", "caption": EVIL}]
    entries.append({"file": "../run_config.json", "title": "elsewhere", "caption": ""})
    (folder / "pictures" / "index.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def pretraining(tmp_path: Path) -> Path:
    return write_pretraining(tmp_path / "pretrain")


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the example, page and Markdown written. Not to be changed."""
    folder = tmp_path_factory.mktemp("cards") / "card"
    write_page(write_example(folder), [write_pretraining(folder.parent / "pretrain")])
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Sample data as the data root, and two tiny checkpoints, ``a`` and ``b``."""
    root = tmp_path_factory.mktemp("world")
    make_sample_data(root / "sample", SampleDataRequest(num_train=6, num_val=4, num_photos=1, size=64))
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        metadata = make_metadata(arch_kwargs=SMALL | dict(depth=4))
        save_backbone(root / f"{name}.safetensors", make_vit(depth=4).state_dict(), metadata)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MST_DATA_ROOT", str(root))
        yield root
