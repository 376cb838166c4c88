"""k-NN accuracy during training, and alarms for a run that collapses or forgets."""

import math
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from mst_transfer.probes.features import extract_features
from mst_transfer.probes.knn import check_k, knn_accuracy
from mst_transfer.probes.labelled_images import open_pair
from mst_transfer.probes.monitors import effective_rank, prototypes_in_use
from mst_transfer.runs.stop_hook import save_now
from pretrain.model import MST
from pretrain.registry import HOOKS
from pretrain.run.hooks import TrainingStoppedError, save_network, set_other_best_aside

ACTIONS = ("warn", "stop")
BEST = "knn_best_teacher.safetensors"
STOP = "knn_stop"  # entry of the message hub, and so of checkpoints: why the guard ends the run


def _check_action(owner: str, action: str) -> None:
    if action not in ACTIONS:
        raise ValueError(f"{owner}.action = {action!r} is not known; choose one of {ACTIONS}")


def _act(runner, action: str, message: str) -> None:
    """Warn, or stop in the middle of an epoch, with a checkpoint."""
    if action == "stop":
        raise TrainingStoppedError(f"{message}; {save_now(runner, runner.iter + 1)}")
    if is_main_process():
        runner.logger.warning(message)


@HOOKS.register_module()
class KNNHook(Hook):
    """k-NN top-1 of the teacher's class token, before training and every few epochs; a guard against forgetting.

    Logs ``knn_top1`` in per cent. With a guard, the best measurement's teacher is ``knn_best_teacher.safetensors``.

    Args:
        train_root, val_root: folders of class folders; the first votes, the second is classified.
        size: side of the views in pixels; None: the global crops'.
        interval: epochs between two measurements; the last epoch is always measured.
        k, temperature: of the votes.
        batch_size, num_workers: of one process; None: as many workers as the training's loader.
        resize: see ``LabelledImages``.
        before_training: measure the initial weights too, once, when the run starts at step 0.
        max_drop: points below the best measurement so far at which the guard acts; None: no guard. Meant for runs
            that continue from good weights.
        action: ``warn``, or ``stop`` to end the run, once that epoch's checkpoint is written, with an error that names
            the best epoch. A run resumed from that checkpoint is stopped again, unless the action is ``warn`` then.
    """

    priority = "LOW"  # after the loggers' numbers, before the checkpoint, which holds the best and the wish to stop

    def __init__(
        self,
        train_root: str,
        val_root: str,
        size: int | None = None,
        interval: int = 10,
        k: int = 20,
        temperature: float = 0.07,
        batch_size: int = 256,
        num_workers: int | None = None,
        resize: str = "crop",
        before_training: bool = True,
        max_drop: float | None = None,
        action: str = "warn",
    ) -> None:
        _check_action("KNNHook", action)
        if interval < 1:
            raise ValueError(f"KNNHook.interval = {interval} must be at least 1 epoch")
        if max_drop is not None and max_drop <= 0:
            raise ValueError(f"KNNHook.max_drop = {max_drop} must be a positive number of points, or None")
        self.roots, self.size, self.resize = (train_root, val_root), size, resize
        self.interval, self.k, self.temperature = interval, k, temperature
        self.batch_size, self.num_workers = batch_size, num_workers
        self.before_training, self.max_drop, self.action = before_training, max_drop, action

    def before_train(self, runner) -> None:
        """Open the images, so that a wrong path shows before the first step; measure the initial weights."""
        size = self.size or runner.train_loop.dataloader.dataset.options.global_size
        runner.train_loop.mst.teacher.backbone.num_patches(size, size)  # a ValueError if they don't fit
        if self.num_workers is None:
            self.num_workers = runner.train_loop.dataloader.loader.num_workers
        self._sets = open_pair(*self.roots, size, self.resize)
        check_k([self.k], len(self._sets[0]), "KNNHook.k")
        if self.max_drop is not None:
            set_other_best_aside(runner, BEST, "knn_best")
        if self.before_training and runner.iter == 0:
            self._measure(runner, 0)

    def before_train_epoch(self, runner) -> None:
        """Stop if the guard asked for it in the epoch before."""
        message = runner.message_hub.runtime_info.get(STOP)
        if message is not None and self.action == "stop":
            raise TrainingStoppedError(message)

    after_train = before_train_epoch

    def after_train_epoch(self, runner) -> None:
        """Measure when it is time."""
        epoch = runner.epoch + 1
        if epoch % self.interval == 0 or epoch == runner.max_epochs:
            self._measure(runner, epoch)

    def accuracy(self, mst: MST) -> float:
        """Top-1 in per cent of the teacher's class token, the same on every process."""
        backbone = mst.teacher.backbone
        device = next(backbone.parameters()).device

        def function(views: Tensor) -> Tensor:
            return backbone(mst.normalise(views)).cls_token

        votes, queries = (
            extract_features(
                function, images, batch_size=self.batch_size, num_workers=self.num_workers or 0, device=device
            )
            for images in self._sets
        )
        return knn_accuracy(*votes, *queries, [self.k], self.temperature, device=device)[self.k]

    def _measure(self, runner, epoch: int) -> None:
        top1 = self.accuracy(runner.train_loop.mst)
        hub = runner.message_hub
        hub.update_scalar("train/knn_top1", top1)
        best, best_epoch = hub.runtime_info.get("knn_best", (-math.inf, 0))
        if is_main_process():
            known = f"; best so far {best:.2f} % after epoch {best_epoch}" if best_epoch or best > 0 else ""
            runner.logger.info(f"k-NN (k={self.k}) after epoch {epoch}: top-1 {top1:.2f} %{known}")
        runner.visualizer.add_scalar("val/knn_top1", top1, step=runner.iter)
        hub.runtime_info.pop(STOP, None)
        if top1 > best:
            hub.update_info("knn_best", (top1, epoch))
            if self.max_drop is not None and is_main_process():
                save_network(runner, "teacher", runner.iter, Path(runner.work_dir) / BEST)
        elif self.max_drop is not None and top1 < best - self.max_drop:
            kept = f", whose teacher is {BEST} in the work dir" if (Path(runner.work_dir) / BEST).is_file() else ""
            message = (
                f"k-NN guard: top-1 fell to {top1:.2f} % after epoch {epoch}, more than max_drop = {self.max_drop:g} "
                f"points below the {best:.2f} % of epoch {best_epoch}{kept}. The run forgets what its weights knew: "
                "lower train_cfg.schedule.base_lr, lengthen the head-only warm-up, or raise teacher_momentum"
            )
            if self.action == "stop":
                hub.update_info(STOP, f"{message}. To go on from here all the same: --resume with action='warn'")
            elif is_main_process():
                runner.logger.warning(message)


@HOOKS.register_module()
class CollapseAlarmHook(Hook):
    """Watches the teacher for the two ways in which self-distillation collapses, without labels.

    Logs ``effective_rank`` (of the class tokens; ``effective_rank``) and
    ``prototypes_in_use`` over the global views of a step. After the learning rate's warm-up it raises an alarm when

    * the teacher's output stays uniform: its entropy is above ``max_entropy`` x ln(K); or
    * all views fall on few prototypes: ``prototypes_in_use`` < ``min_prototypes``; or
    * the class tokens point the same way: ``effective_rank`` < ``min_rank``.

    Args:
        interval: steps between two looks.
        num_views: largest number of global views of each process to look at; no forward pass is made for them.
        max_entropy: share of ln(K).
        min_prototypes: at least so many, of K.
        min_rank: of the features.
        patience: looks in a row that must be bad.
        action: ``warn``, or ``stop`` to end the run, with a checkpoint of that step.
    """

    priority = "NORMAL"

    def __init__(
        self,
        interval: int = 50,
        num_views: int = 256,
        max_entropy: float = 0.98,
        min_prototypes: float = 2.0,
        min_rank: float = 2.0,
        patience: int = 3,
        action: str = "warn",
    ) -> None:
        _check_action("CollapseAlarmHook", action)
        for name, value in {"interval": interval, "num_views": num_views, "patience": patience}.items():
            if value < 1:
                raise ValueError(f"CollapseAlarmHook.{name} = {value} must be at least 1")
        self.interval, self.num_views, self.patience, self.action = interval, num_views, patience, action
        self.max_entropy, self.min_prototypes, self.min_rank = max_entropy, min_prototypes, min_rank
        self._views: list[tuple[Tensor, Tensor]] = []
        self._listening = False
        self._bad_in_a_row = 0

    def before_train(self, runner) -> None:
        """Listen to the teacher's head: class tokens in, logits out."""
        runner.train_loop.mst.teacher.head.register_forward_hook(self._remember)

    def _remember(self, head, inputs: tuple[Tensor], logits: Tensor) -> None:
        left = self.num_views - sum(len(tokens) for tokens, _ in self._views)
        if self._listening and left > 0:
            self._views.append((inputs[0].detach()[:left], logits.detach()[:left]))

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Listen in the steps that are looked at, so that nothing is kept in the others."""
        self._listening = (runner.iter + 1) % self.interval == 0

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Look when it is time, and the teacher's output is finite: other steps are left out, and recorded, anyway."""
        views, self._views = self._views, []
        if not views or outputs is None or "teacher_entropy" not in outputs:
            return
        mst = runner.train_loop.mst
        tokens, logits = (torch.cat(parts) for parts in zip(*views, strict=True))
        in_use = prototypes_in_use(logits, mst.dino_loss.center, outputs["teacher_temp"])
        seen = torch.tensor([effective_rank(tokens), in_use])
        all_reduce(seen)  # the mean of the processes: the same decision everywhere
        rank, in_use = (seen / get_world_size()).tolist()
        runner.message_hub.update_scalar("train/effective_rank", rank)
        runner.message_hub.update_scalar("train/prototypes_in_use", in_use)
        loop = runner.train_loop
        if runner.iter >= loop.schedule.warmup_epochs * len(loop.dataloader):
            self._judge(runner, outputs["teacher_entropy"], rank, in_use, mst.student.head.out_dim)

    def _judge(self, runner, entropy: float, rank: float, in_use: float, num_prototypes: int) -> None:
        most = math.log(num_prototypes)
        faults = []
        if entropy > self.max_entropy * most:
            faults.append(
                f"the teacher's output is uniform (entropy {entropy:.3f} of at most ln({num_prototypes}) = "
                f"{most:.3f}): lower teacher_temp or warmup_teacher_temp in train_cfg.schedule, or use fewer "
                "prototypes (model.head.out_dim)"
            )
        if in_use < self.min_prototypes:
            faults.append(
                f"all views fall on {in_use:.2f} of {num_prototypes} prototypes: raise teacher_temp, or lower "
                "model.loss.center_momentum or train_cfg.schedule.base_lr"
            )
        if rank < self.min_rank:
            faults.append(
                f"the class tokens have an effective rank of {rank:.2f}: lower train_cfg.schedule.base_lr or raise "
                "teacher_momentum"
            )
        self._bad_in_a_row = self._bad_in_a_row + 1 if faults else 0
        if self._bad_in_a_row and self._bad_in_a_row % self.patience == 0:
            looks = f"collapse alarm at step {runner.iter + 1}, {self._bad_in_a_row} looks in a row"
            _act(runner, self.action, f"{looks}: {'; '.join(faults)}")
