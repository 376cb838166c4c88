"""What runs around the step: backbone files, throughput and warnings."""

import logging
from datetime import datetime, timezone
from pathlib import Path

import mmengine
import timm
import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper

import mst_transfer
from mst_transfer.checkpoint import BackboneMetadata, save_backbone
from pretrain.model import MST
from pretrain.registry import HOOKS

ROLES = ("teacher", "student")


def unwrap(model: torch.nn.Module) -> MST:
    """The MST below a distributed wrapper."""
    core = model.module if is_model_wrapper(model) else model
    assert isinstance(core, MST)
    return core


def backbone_metadata(mst: MST, role: str, provenance: dict) -> BackboneMetadata:
    """The contract's metadata for one of the two networks."""
    backbone = mst.student.backbone
    return BackboneMetadata(
        arch=backbone.arch,
        arch_kwargs=dict(backbone.arch_kwargs),
        patch_size=backbone.patch_size,
        img_size=tuple(backbone.vit.patch_embed.img_size),
        embed_dim=backbone.embed_dim,
        mean=tuple(round(v, 6) for v in (mst.mean.flatten() / 255).tolist()),
        std=tuple(round(v, 6) for v in (mst.std.flatten() / 255).tolist()),
        role=role,
        pos_embed_interpolation="timm",
        provenance=provenance,
    )


@HOOKS.register_module()
class BackboneCheckpointHook(CheckpointHook):
    """mmengine's checkpoints, each with the backbone files that the transfer side reads.

    Next to ``epoch_N.pth`` stand ``epoch_N_teacher.safetensors`` and ``epoch_N_student.safetensors``; the newest are
    also ``teacher.safetensors`` and ``student.safetensors``. When ``max_keep_ckpts`` removes a checkpoint its
    backbone files go too. All arguments are mmengine's.
    """

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            self._write_backbones(runner, meta)
            self._remove_orphans(runner)

    def _write_backbones(self, runner, meta: dict) -> None:
        mst, stem = unwrap(runner.model), Path(self.last_ckpt).stem
        provenance = {
            "method": "MST",
            "config": Path(runner.cfg.filename or "unnamed").name,
            "epoch": meta["epoch"],
            "step": meta["iter"],
            "seed": runner.seed,
            "masking": mst.mask_generator.mode,
            "decoder": mst.decoder is not None,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {
                "mst_transfer": mst_transfer.__version__,
                "torch": torch.__version__,
                "timm": timm.__version__,
                "mmengine": mmengine.__version__,
            },
        }
        for role in ROLES:
            network = mst.teacher if role == "teacher" else mst.student
            state = network.backbone.vit.state_dict()
            metadata = backbone_metadata(mst, role, provenance)
            for name in (f"{stem}_{role}.safetensors", f"{role}.safetensors"):
                save_backbone(Path(self.out_dir) / name, state, metadata)

    def _remove_orphans(self, runner) -> None:
        folder, pattern = Path(self.out_dir), self.filename_tmpl.replace("{}", "*").removesuffix(".pth")
        for role in ROLES:
            for path in folder.glob(f"{pattern}_{role}.safetensors"):
                if not path.with_name(path.name.removesuffix(f"_{role}.safetensors") + ".pth").exists():
                    path.unlink()


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Logs images a second over all processes and the share of time spent waiting for data.

    Args:
        window: steps over which both are averaged.
        warn_share: a share above this is named in a warning, once an epoch.
    """

    priority = "NORMAL"

    def __init__(self, window: int = 20, warn_share: float = 0.2) -> None:
        self.window, self.warn_share = window, warn_share
        self._warned_epoch = -1

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        hub, loop = runner.message_hub, runner.train_loop
        if "train/time" not in hub.log_scalars:
            return
        step_time = hub.get_scalar("train/time").mean(self.window)
        share = float(hub.get_scalar("train/data_time").mean(self.window) / max(step_time, 1e-9))
        hub.update_scalar("train/images_per_s", float(loop.effective_batch / max(step_time, 1e-9)))
        hub.update_scalar("train/data_share", share)
        settled = loop.iter > 2 * self.window
        if share > self.warn_share and settled and self._warned_epoch != runner.epoch:
            self._warned_epoch = runner.epoch
            runner.logger.warning(
                f"{share:.0%} of the time is spent waiting for data: give train_dataloader.num_workers more "
                "processes, use smaller source images, or a faster disk"
            )


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Counts the images that could not be read, and says so at the end of each epoch."""

    def __init__(self) -> None:
        self._count = 0

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._count += sum(int(batch["num_unreadable"].sum()) for batch in data_batch or ())

    @master_only
    def after_train_epoch(self, runner) -> None:
        if self._count:
            runner.logger.log(
                logging.WARNING,
                f"{self._count} image(s) could not be read in epoch {runner.epoch + 1} on this process and were "
                "replaced by others; their names are in the warnings above",
            )
        self._count = 0
