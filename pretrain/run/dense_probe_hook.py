"""Dense k-NN during training: which checkpoint is best for dense tasks."""

import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mst_transfer.checkpoint.normalisation import Normalisation
from mst_transfer.files.image_folder import find_images
from mst_transfer.probes.backbones import FrozenBackbone
from mst_transfer.probes.dense_images import DenseImages
from mst_transfer.probes.dense_probe import dense_probe
from pretrain.registry import HOOKS
from pretrain.run.hooks import save_network, set_other_best_aside

BEST = "dense_best_teacher.safetensors"


@HOOKS.register_module()
class DenseProbeHook(Hook):
    """mIoU of dense k-NN on the teacher's patch tokens; the best teacher so far is ``dense_best_teacher.safetensors``.

    Logs ``dense_miou`` in per cent. Choose images that no result is quoted on: the best of many is better by chance.

    Args:
        train_root, val_root: folders of labelled images, and of those that are scored, both within ``leftImg8bit`` of
            Cityscapes' layout, e.g. two cities of ``leftImg8bit/train``.
        interval: epochs between two measurements; the last epoch is always measured.
        num_classes: of the label maps, ``gtFine/…_gtFine_labelTrainIds.png``; 255 is no class.
        max_side: larger images are scaled down to it, in pixels.
    """

    priority = "LOW"  # after the loggers' numbers, before the checkpoint, which holds the best

    def __init__(
        self, train_root: str, val_root: str, interval: int = 10, num_classes: int = 19, max_side: int | None = None
    ) -> None:
        if interval < 1:
            raise ValueError(f"DenseProbeHook.interval = {interval} must be at least 1 epoch")
        self.roots, self.interval, self.options = (train_root, val_root), interval, (num_classes, max_side)

    def before_train(self, runner) -> None:
        """Finds images and label maps, so that a missing one shows before the first step."""
        if set_other_best_aside(runner, BEST, "dense_best"):
            runner.message_hub.runtime_info.pop("dense_best", None)
        num_classes, max_side = self.options
        cell = runner.train_loop.mst.teacher.backbone.cell_size
        self.sets = [DenseImages(labelled(root), num_classes, cell, max_side) for root in self.roots]

    def after_train_epoch(self, runner) -> None:
        """Measures when it is time, in the main process; keeps the best."""
        epoch, mst, hub = runner.epoch + 1, runner.train_loop.mst, runner.message_hub
        if not is_main_process() or (epoch % self.interval and epoch != runner.max_epochs):
            return
        mean, std = ((value.flatten() / 255).tolist() for value in (mst.mean, mst.std))
        vit, size = mst.teacher.backbone.vit, runner.train_loop.dataloader.dataset.options.global_size
        frozen = FrozenBackbone(vit, Normalisation(mean, std, "the config's"), size, mst.mean.device)
        miou = next(dense_probe(frozen, *self.sets, protocols=("dense_knn",))).miou
        hub.update_scalar("train/dense_miou", miou)
        runner.visualizer.add_scalar("val/dense_miou", miou, step=runner.iter)
        if miou > hub.runtime_info.get("dense_best", (-1.0, 0))[0]:
            hub.update_info("dense_best", (miou, epoch))
            save_network(runner, "teacher", runner.iter, Path(runner.work_dir) / BEST)
        best, when = hub.get_info("dense_best", (miou, epoch))
        known = f"best for dense tasks: {BEST} of epoch {when}, {best:.2f} %"
        runner.logger.info(f"dense k-NN after epoch {epoch}: mIoU {miou:.2f} %; {known}")


def labelled(root: str) -> list[tuple[str, str]]:
    """Images below a folder with their label maps, in Cityscapes' layout; FileNotFoundError if one is missing."""
    pairs = []
    for path in find_images(root):
        folder, name = os.path.split(path)
        above, _, below = folder.rpartition("leftImg8bit")
        labels = os.path.join(f"{above}gtFine{below}", f"{name.rpartition('_')[0]}_gtFine_labelTrainIds.png")
        if not os.path.isfile(labels):
            raise FileNotFoundError(
                f"{path} has no label map {labels}. Next step: see docs/evaluation.md for the layout"
            )
        pairs.append((path, labels))
    return pairs
