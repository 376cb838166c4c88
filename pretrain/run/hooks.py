"""Runs around the step: backbone files, throughput and warnings."""

import time
from collections import deque
from datetime import datetime, timezone
from pathlib import Path

import mmengine
import timm
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

import mst_transfer
from mst_transfer.checkpoint import BackboneMetadata, read_backbone, save_backbone
from mst_transfer.files.checksums import content_size
from mst_transfer.runs.checkpoint_hook import SafeCheckpointHook
from mst_transfer.runs.unreadable_images import UnreadableImagesHook
from pretrain.model import MST
from pretrain.registry import HOOKS

ROLES = ("teacher", "student")
HOOKS.register_module(module=UnreadableImagesHook)

MAX_HISTORY = 1000  # steps of each logged value that a checkpoint keeps


class TrainingStoppedError(RuntimeError):
    """A guard has ended the run; the message says why and what to do."""


def backbone_metadata(mst: MST, role: str, provenance: dict) -> BackboneMetadata:
    """The contract's metadata for one of the two networks; without the rates of dropping, which are this training's."""
    backbone = mst.student.backbone
    options = {name: value for name, value in backbone.arch_kwargs.items() if not name.endswith("drop_rate")}
    return BackboneMetadata(
        arch=backbone.arch,
        arch_kwargs=options,
        patch_size=backbone.patch_size,
        img_size=tuple(backbone.vit.patch_embed.img_size),
        embed_dim=backbone.vit.patch_embed.proj.out_channels,
        mean=tuple(round(v, 6) for v in (mst.mean.flatten() / 255).tolist()),
        std=tuple(round(v, 6) for v in (mst.std.flatten() / 255).tolist()),
        role=role,
        pos_embed_interpolation=getattr(backbone, "pos_embed_interpolation", "timm"),
        provenance=provenance,
    )


def save_network(runner, role: str, step: int, *paths: Path) -> None:
    """Write the backbone of one of the two networks, as it is after so many steps, to each of the paths."""
    mst = runner.train_loop.mst
    masking, has_decoder = mst.mask_generator.mode, mst.decoder is not None
    provenance = {
        "method": "DINO" if masking == "none" and not has_decoder else "MST",
        "config": Path(runner.cfg.filename or "unnamed").name,
        "epoch": round(step / len(runner.train_loop.dataloader), 3),
        "step": step,
        "seed": runner.seed,
        "masking": masking,
        "decoder": has_decoder,
        "init_from": runner.message_hub.get_info("init_from"),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "mst_transfer": mst_transfer.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "mmengine": mmengine.__version__,
        },
    }
    state = (mst.teacher if role == "teacher" else mst.student).backbone.vit.state_dict()
    for path in paths:
        save_backbone(path, state, backbone_metadata(mst, role, provenance))


def set_other_best_aside(runner, name: str, best: str) -> bool:
    """Renames a best teacher that a resumed run has not seen: of a later epoch than that of its entry ``best``.

    ``best`` is (figure, epoch) in the message hub. Returns whether there was one; for the main process.
    """
    file = Path(runner.work_dir) / name
    if not is_main_process() or not file.is_file():
        return False
    known, metadata = runner.message_hub.runtime_info.get(best, (0.0, None))[1], read_backbone(file)[1]
    found = metadata.provenance.get("epoch") if metadata else None
    if found == known:
        return False
    epoch = str(found).removesuffix(".0")
    aside = file.replace(file.with_stem(f"{file.stem}_of_epoch_{epoch}"))
    runner.logger.warning(
        f"{name} is of epoch {epoch}, which this run does not know as its best: it is {aside.name} now"
    )
    return True


@HOOKS.register_module()
class BackboneCheckpointHook(SafeCheckpointHook):
    """mmengine's checkpoints, each with the backbone files that the transfer side reads.

    Next to ``epoch_N.pth`` stand ``epoch_N_teacher.safetensors`` and ``epoch_N_student.safetensors``; the newest are
    also ``teacher.safetensors`` and ``student.safetensors``. When ``max_keep_ckpts`` removes a checkpoint its
    backbone files go too. All arguments are mmengine's.
    """

    def bytes_beside(self, runner) -> int:
        """Both networks' backbones, each under two names."""
        return 2 * len(ROLES) * content_size(runner.train_loop.mst.student.backbone.vit.state_dict())

    def write_beside(self, runner, step: int, meta: dict) -> None:
        """The backbones of a step. Those under the step's name come first: they are whole before others name them."""
        stem = self._stem(step)
        for role in ROLES:
            names = (f"{stem}_{role}.safetensors", f"{role}.safetensors")
            save_network(runner, role, meta["iter"], *(Path(self.out_dir) / name for name in names))

    def remove_beside(self, step: int) -> None:
        """The backbones that stand beside a checkpoint."""
        for role in ROLES:
            (Path(self.out_dir) / f"{self._stem(step)}_{role}.safetensors").unlink(missing_ok=True)

    def _stem(self, step: int) -> str:
        return self.filename_tmpl.format(step).removesuffix(".pth")


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuses a checkpoint that does not hold exactly the model's tensors; mmengine only warns."""

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Loads the weights once more, as torch does when it is strict.

        Raises:
            ValueError: names what is missing, unexpected or of another shape.
        """
        try:
            runner.train_loop.mst.load_state_dict(checkpoint["state_dict"], strict=True)
        except RuntimeError as error:
            shown = "\n".join(str(error).splitlines()[1:11])
            raise ValueError(
                f"the checkpoint does not fit the model of this config:\n{shown}\n"
                "Next step: resume with the config that it was made with"
            ) from error


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Logs images a second over all processes and the share of time spent waiting for data.

    Args:
        window: steps over which both are averaged.
        warn_share: a share above this is named in a warning, once an epoch.
    """

    priority = "NORMAL"

    def __init__(self, window: int = 20, warn_share: float = 0.2) -> None:
        self.warn_share = warn_share
        self._steps: deque[tuple[float, float]] = deque(maxlen=window)  # seconds of a step, and of waiting in it
        self._last: float | None = None
        self._warned = False

    def before_train_epoch(self, runner) -> None:
        """An epoch's first step waits for the workers to start: it does not count."""
        self._last, self._warned = None, False
        self._steps.clear()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Keep histories short: mmengine copies them at every step."""
        if runner.iter % 100 == 0:
            for history in runner.message_hub.log_scalars.values():
                history._max_length = MAX_HISTORY

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Log both, from the second step of an epoch on."""
        now, loop = time.perf_counter(), runner.train_loop
        if self._last is not None:
            self._steps.append((now - self._last, loop.dataloader.wait_seconds))
        self._last = now
        if not self._steps:
            return
        seconds, waited = (sum(column) for column in zip(*self._steps, strict=True))
        share = min(waited / seconds, 1.0)
        runner.message_hub.update_scalar("train/images_per_s", loop.effective_batch * len(self._steps) / seconds)
        runner.message_hub.update_scalar("train/data_share", share)
        if share > self.warn_share and len(self._steps) == self._steps.maxlen and not self._warned:
            self._warned = True
            runner.logger.warning(
                f"{share:.0%} of the time is spent waiting for data: give train_dataloader.num_workers more "
                "processes, or use smaller source images or a faster disk; for large photographs "
                "train_dataloader.dataset.reduced_decoding=True"
            )
