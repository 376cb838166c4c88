"""The pre-training loop: one optimiser step is what a reader of the paper would write down.

A "step" is one update of the student, over ``accumulation_steps`` micro-batches on every process. All schedules,
logs and checkpoints count such steps.
"""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from mst_transfer.devices.compiler import missing_for_compiler
from mst_transfer.devices.processor import keep_freed_memory
from mst_transfer.runs.counter_random import derive_key
from mst_transfer.runs.nonfinite_steps import NonfiniteSteps, finite
from mst_transfer.runs.workers import lack_of_shared_memory
from pretrain.data.dataset import MultiCropDataset
from pretrain.data.sampler import EpochSampler
from pretrain.model import MST
from pretrain.registry import LOOPS
from pretrain.run.optim import PretrainOptimWrapper
from pretrain.run.step_numbers import StepNumbers
from pretrain.schedules import Schedule, StepValues

Batch = dict[str, Tensor]
MODEL_INPUTS = ("global_crops", "local_crops", "index")


class StepLoader:
    """Groups a loader's micro-batches into the steps of an epoch."""

    def __init__(self, loader: DataLoader, accumulation_steps: int) -> None:
        self.loader, self.accumulation_steps = loader, accumulation_steps
        assert isinstance(loader.sampler, EpochSampler) and isinstance(loader.dataset, MultiCropDataset)
        self.dataset, self.sampler, self.batch_sampler = loader.dataset, loader.sampler, loader.batch_sampler
        self.steps_per_epoch = loader.sampler.steps_per_epoch
        self.batch_size = loader.batch_size
        self.wait_seconds = 0.0  # for the batches of the newest step

    def __len__(self) -> int:
        return self.steps_per_epoch

    def iterate(self, epoch: int, start_step: int) -> Iterator[list[Batch]]:
        """Steps ``start_step`` … of an epoch, without loading those before."""
        self.sampler.set_epoch(epoch)
        self.sampler.set_start_step(start_step)
        batches = iter(self.loader)
        for _ in range(start_step, self.steps_per_epoch):
            asked = time.perf_counter()
            step = [next(batches) for _ in range(self.accumulation_steps)]
            self.wait_seconds = time.perf_counter() - asked
            yield step


@LOOPS.register_module()
class PretrainLoop(EpochBasedTrainLoop):
    """Trains an ``MST``.

    Args:
        runner: mmengine's runner.
        dataloader: loader or its config.
        max_epochs: length of the run; all schedules end with it.
        schedule: arguments of ``Schedule``.
        accumulation_steps: micro-batches a step: effective batch = processes x batch size x accumulation_steps.
        max_nonfinite_steps: after so many steps *in a row* with a loss or gradient that is not finite the run stops.
    """

    def __init__(
        self,
        runner,
        dataloader: DataLoader | dict,
        max_epochs: int,
        schedule: dict | None = None,
        accumulation_steps: int = 1,
        max_nonfinite_steps: int = 10,
    ) -> None:
        if accumulation_steps < 1:
            raise ValueError(f"train_cfg.accumulation_steps = {accumulation_steps} must be at least 1")
        if isinstance(dataloader, dict):
            sampler = dict(dataloader["sampler"])
            sampler.update(batch_size=dataloader["batch_size"], accumulation_steps=accumulation_steps)
            dataloader = {"collate_fn": {"type": "default_collate"}, **dataloader, "sampler": sampler}
            dataloader["pin_memory"] = dataloader.get("pin_memory", True) and torch.cuda.is_available()
            if not dataloader.get("num_workers"):
                dataloader.update(persistent_workers=False, prefetch_factor=None)
        super().__init__(runner, dataloader, max_epochs)
        self.schedule = Schedule(**(schedule or {}))
        self.schedule.check_length(max_epochs)
        self.accumulation_steps = accumulation_steps
        self.dataloader: StepLoader = StepLoader(vars(self)["dataloader"], accumulation_steps)
        self._max_iters = self._max_epochs * len(self.dataloader)
        self.effective_batch = get_world_size() * self.dataloader.batch_size * accumulation_steps
        self._check_views()
        self._nonfinite = NonfiniteSteps(runner, max_nonfinite_steps)

    @property
    def mst(self) -> MST:
        """The model without its distributed wrapper."""
        return self.runner.model.module if is_model_wrapper(self.runner.model) else self.runner.model

    def _check_views(self) -> None:
        """Refuse views that do not fit the patches, and masks that could never hide one."""
        options, masking = self.dataloader.dataset.options, self.mst.mask_generator
        backbone = self.mst.student.backbone
        masking.check_size(backbone.num_patches(options.global_size, options.global_size))
        if options.num_local_crops:
            backbone.num_patches(options.local_size, options.local_size)

    def run(self) -> torch.nn.Module:
        """Launch training, from wherever the runner has resumed."""
        self.seed = self.runner.seed  # resuming takes the checkpoint's
        self.mst.mask_generator.seed = self.dataloader.dataset.seed = self.dataloader.sampler.seed = self.seed
        self._check_resumed()
        hub = self.runner.message_hub
        if "init_from" not in hub.runtime_info:  # a resumed run has it from its beginning
            hub.update_info("init_from", self.runner.cfg.model.get("init_from") or "")
        backbone, options = self.mst.student.backbone, self.dataloader.dataset.options
        sides = {options.global_size, options.local_size} if options.num_local_crops else {options.global_size}
        self.runner.optim_wrapper.settle_format(backbone, [backbone.num_patches(side, side) for side in sides])
        self.runner.logger.info(self.plan())
        if warning := lack_of_shared_memory(self.dataloader.loader, self.dataloader.dataset.options.sample_bytes):
            self.runner.logger.warning(warning)
        keep_freed_memory()
        return super().run()

    def _check_resumed(self) -> None:
        """Refuse to go on with other steps than the run was started with."""
        hub = self.runner.message_hub
        for name, value in {
            "effective batch": self.effective_batch,
            "number of images": len(self.dataloader.dataset),
            "number of epochs": self._max_epochs,
        }.items():
            before = hub.runtime_info.get(name, value)
            if before != value:
                raise ValueError(
                    f"the checkpoint's run had {name} {before}, this one has {value}: its steps would not fit. "
                    "Resume with the same images, epochs, and processes x batch_size x accumulation_steps, or start "
                    "anew in another --work-dir"
                )
            hub.update_info(name, value)

    def plan(self) -> str:
        """What this run will do, in numbers."""
        steps, schedule, data = len(self.dataloader), self.schedule, self.dataloader.dataset.options
        momentum = schedule.scale_momentum(schedule.teacher_momentum, self.effective_batch)
        optim, mst = self.runner.optim_wrapper, self.mst
        lines = [
            f"plan: {get_world_size()} process(es) x batch {self.dataloader.batch_size} x accumulation "
            f"{self.accumulation_steps} = effective batch {self.effective_batch}",
            f"{len(self.dataloader.dataset)} images, {steps} steps an epoch, {self._max_epochs} epochs, "
            f"{self._max_iters} steps; seed {self.seed}",
            f"views of an image: 2 x {data.global_size} px, {data.num_local_crops} x {data.local_size} px; mask "
            f"{mst.mask_generator.mode}; decoder {'off' if mst.decoder is None else 'on'}",
            f"{optim.format.name}: {optim.format.why}",
            *self._plan_of_gpu(),
            f"learning rate {schedule.base_lr:g} x {self.effective_batch}/{schedule.base_batch} = "
            f"{schedule.peak_lr(self.effective_batch):g} after {schedule.warmup_epochs * steps} steps of warm-up",
            f"teacher momentum from {momentum:.6g}"
            + (f" = {schedule.teacher_momentum:g}^({self.effective_batch}/{schedule.momentum_batch})"
               if schedule.momentum_batch else ""),
        ]  # fmt: skip
        first, last = (schedule.at(t, steps, self._max_epochs, 1).teacher_temp for t in (0, self._max_iters - 1))
        lines.append(f"teacher temperature from {first:g} to {last:g}")
        if last != schedule.teacher_temp:
            lines[-1] += (
                f": teacher_temp = {schedule.teacher_temp:g} is not reached, warmup_teacher_temp_epochs = "
                f"{schedule.warmup_teacher_temp_epochs} is longer than the run"
            )
        if schedule.freeze_last_layer_epochs >= self._max_epochs:
            lines.append("the head's last layer is never trained: freeze_last_layer_epochs is as long as the run")
        if schedule.head_only_epochs:
            lines.append(f"backbone fixed for the first {schedule.head_only_epochs:g} epochs")
        if self.accumulation_steps > 1 and any(isinstance(part, _BatchNorm) for part in mst.modules()):
            lines.append(
                f"BatchNorm sees {get_world_size()} x {self.dataloader.batch_size} images at a time, not "
                "the effective batch; losses, gradients, centre and masks are those of one large batch"
            )
        return "\n  ".join(lines)

    def _plan_of_gpu(self) -> list[str]:
        """What is done on a GPU alone: TF32, and compiled blocks."""
        if self.mst.mean.device.type != "cuda":
            return []
        options, missing = self.runner.cfg.model.get("backbone") or {}, missing_for_compiler()
        lines = [self.runner.optim_wrapper.products]
        if options.get("compile_blocks") is None and not options.get("grad_checkpointing"):
            lines.append(f"blocks are not compiled: {missing}" if missing else "blocks are compiled in the first step")
        return lines

    def run_epoch(self) -> None:
        """The rest of the current epoch."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        start = self._iter - self._epoch * len(self.dataloader)
        for index, micro_batches in enumerate(self.dataloader.iterate(self._epoch, start), start):
            self.run_iter(index, micro_batches)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: list[Batch]) -> None:
        """One optimiser step, between its hooks."""
        values = self.schedule.at(self._iter, len(self.dataloader), self._max_epochs, self.effective_batch)
        self.runner.optim_wrapper.set_hyperparameters(values.lr, values.weight_decay)
        torch.manual_seed(derive_key(self.seed, self._iter, get_rank()))  # stochastic depth
        self.runner.call_hook("before_train_iter", batch_idx=idx, data_batch=data_batch)
        outputs = self.optimizer_step(data_batch, values)
        self.runner.call_hook("after_train_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def optimizer_step(self, micro_batches: list[Batch], values: StepValues) -> dict[str, float]:
        """One update, or none if a loss or gradient is not finite in any process; what is to be logged."""
        mst, optim = self.mst, self.runner.optim_wrapper
        assert isinstance(optim, PretrainOptimWrapper)
        statistics = [] if mst.decoder is None else [buffer.clone() for buffer in mst.decoder.buffers()]
        sums = self._add_gradients(micro_batches, optim, values.teacher_temp)
        numbers = StepNumbers({**sums, "grad_norm": optim.clip_gradients()})
        mst.update_student(optim, values, numbers.left_out)
        logged = numbers.read()
        if self._is_finite(sums, logged, micro_batches):
            optim.taken()
            mst.dino_loss.update_center()
            mst.update_teacher(values.teacher_momentum)
        elif mst.decoder is not None:
            for buffer, before in zip(mst.decoder.buffers(), statistics, strict=True):
                buffer.copy_(before)  # BatchNorm's running statistics
        names = ("weight_decay", "teacher_momentum", "teacher_temp")
        return {**finite(logged), **{name: getattr(values, name) for name in names}}

    def _add_gradients(
        self, micro_batches: list[Batch], optim: PretrainOptimWrapper, teacher_temp: float
    ) -> dict[str, Tensor]:
        """Forward and backward over the micro-batches of this process; means of what the model returns."""
        model, means = self.runner.model, dict[str, Tensor]()
        optim.zero_grad()
        for position, batch in enumerate(micro_batches):
            batch = self.mst.data_preprocessor({name: batch[name] for name in MODEL_INPUTS}, True)  # to the device
            last = position == len(micro_batches) - 1
            with nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync():
                with optim.autocast():
                    losses = model(**batch, step=self._iter, teacher_temp=teacher_temp)
                optim.backward(losses["loss"] / len(micro_batches))
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach().float() / len(micro_batches)
        return means

    def _is_finite(self, sums: dict[str, Tensor], logged: dict[str, float], micro_batches: list[Batch]) -> bool:
        """False for a step to leave out, on every process alike: a mean is not finite if one process's value is not."""
        if math.isfinite(logged["grad_norm"]) and math.isfinite(logged["loss"]):
            self._nonfinite.taken()
            return True
        self._nonfinite.count()
        self.mst.dino_loss.discard_center_update()
        lowered = self.runner.optim_wrapper.skip()
        if lowered and math.isfinite(logged["loss"]):
            return False  # the loss scale was too high, as it is expected to be at times
        paths = self.dataloader.dataset.paths
        samples = [dict(index=i, path=paths[i]) for batch in micro_batches for i in batch["index"].tolist()]
        here = {f"{name} of this process": value.item() for name, value in sums.items()}
        self._nonfinite.left_out(
            self._iter,
            {**logged, **here},
            samples,
            "Next step: look at those images; resume from the checkpoint with a lower train_cfg.schedule.base_lr, or "
            "with optim_wrapper.dtype='bfloat16' or None instead of 'float16'",
        )
        return False
