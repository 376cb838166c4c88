"""Small models, images and configs for the pre-training tests."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mst_transfer.checkpoint import save_backbone
from mst_transfer.datasets.shard_writer import write_shards
from pretrain.model import MST
from pretrain.run.hooks import backbone_metadata

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]  # for agreeing_runs, process_groups

TINY_BACKBONE = dict(arch="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
TINY_HEAD = dict(out_dim=32, hidden_dim=16, bottleneck_dim=8)


@pytest.fixture
def tiny_mst() -> Callable[..., MST]:
    """Builds an MST of 24-d tokens, 4 x 4 patches and 32 prototypes, always from the same seed.

    Options of a ``backbone`` change the tiny ViT; a Swin takes its place.
    """

    def build(backbone: dict | None = None, **overrides) -> MST:
        torch.manual_seed(0)
        backbone = backbone or {}
        if not backbone.get("arch", "").startswith("swin"):
            backbone = TINY_BACKBONE | backbone
        arguments = dict(head=dict(TINY_HEAD), decoder=dict(channels=(8, 8, 8)))
        return MST(backbone, **{**arguments, **overrides}).train()

    return build


@pytest.fixture
def save_teacher(tmp_path: Path) -> Callable[[MST], Path]:
    """Writes the backbone file of an MST's teacher."""

    def save(mst: MST) -> Path:
        path = tmp_path / "teacher.safetensors"
        save_backbone(path, mst.teacher.backbone.vit.state_dict(), backbone_metadata(mst, "teacher", {}))
        return path

    return save


@pytest.fixture
def crops() -> Callable[..., dict[str, torch.Tensor]]:
    """Builds a batch as the data loader gives it."""

    def build(batch: int = 4, num_local: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        return dict(
            global_crops=torch.randint(0, 256, (batch, 2, 3, 32, 32), dtype=torch.uint8, generator=random),
            local_crops=torch.randint(0, 256, (batch, num_local, 3, 16, 16), dtype=torch.uint8, generator=random),
            index=torch.arange(batch),
        )

    return build


TINY_CONFIG = """
_base_ = "mst_transfer::pretrain/configs/mst_vit_sample.py"
model = dict(
    backbone=dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, drop_path_rate=0.2),
    head=dict(out_dim=32, hidden_dim=16, bottleneck_dim=8, use_bn=False),
    masking=dict(p=0.5, num=2),
    decoder=dict(channels=(8, 8, 8)),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(data_root={data_root!r}, global_size=32, local_size=16, num_local_crops=2),
)
optim_wrapper = dict(dtype=None)
train_cfg = dict(max_epochs=2, schedule=dict(warmup_epochs=1, base_lr=0.05))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=4, max_keep_ckpts=-1))
visualizer = dict(vis_backends=[dict(type="mmengine.LocalVisBackend")])
"""


@pytest.fixture
def sgd_config(tiny_config: Path) -> Path:
    """The same with plain descent, for comparisons: Adam turns rounding errors of vanishing gradients into steps."""
    sgd = 'optim_wrapper = dict(dtype=None, optimizer=dict(_delete_=True, type="SGD", momentum=0.9))'
    tiny_config.write_text(f"{tiny_config.read_text()}\n{sgd}\n")
    return tiny_config


@pytest.fixture
def tiny_config(tmp_path: Path, photo_folder: Path) -> Path:
    """A config file that inherits a shipped one; 6 steps an epoch, 2 epochs."""
    return write_tiny_config(tmp_path, photo_folder)


def write_tiny_config(folder: Path, photo_folder: Path) -> Path:
    """Writes the file of ``tiny_config`` into a folder."""
    (folder / "tiny.py").write_text(TINY_CONFIG.format(data_root=str(photo_folder)))
    return folder / "tiny.py"


@pytest.fixture
def runner_of(tmp_path: Path) -> Callable[..., Any]:
    """Builds the runner of a config and words of the command line; its work dir is ``run`` unless they say another."""
    from pretrain.run.train import build_parser, build_runner, load_config

    def build(config: Path, *words: str) -> Any:
        args = build_parser().parse_args([str(config), "--work-dir", str(tmp_path / "run"), *words])
        return build_runner(load_config(args), "none")

    return build


@pytest.fixture(params=["folder", "shards", "address"])
def as_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path | str]:
    """Gives the photos of a folder as a ``data_root`` of each kind: as they are, as shards, and as shards elsewhere."""

    def give(folder: Path) -> Path | str:
        if request.param == "folder":
            return folder
        shards = tmp_path_factory.mktemp("shards")
        write_shards(str(folder), str(shards), 8_000, 2)
        return shards if request.param == "shards" else f"file://{shards}"

    return give


@pytest.fixture(autouse=True)
def no_cache_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that have an address are kept in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    """A whole run of 12 steps with checkpoints every 4; look, change nothing."""
    from pretrain.run.train import main

    folder = tmp_path_factory.mktemp("finished")
    assert main([str(write_tiny_config(folder, photo_folder)), "--work-dir", str(folder / "whole"), "--seed", "5"]) == 0
    return folder / "whole"
