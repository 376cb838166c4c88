"""mmengine's training loops, resumed at any iteration as if they had never stopped.

What is different from mmengine's:

- The order of samples follows from (seed, epoch), every other draw from (seed, epoch, sample) or (seed, iteration,
  rank): see ``order`` and ``counter_random``.
- A resumed run goes to its place at once; nothing before it is loaded.
- Where gradients of several iterations are added up and a checkpoint was written between them, the resumed run
  computes those again: weights have not changed since, so they come out the same, on any number of processes.
- A validation that was due right after the checkpoint, and that the checkpoint does not know of, is made up for.
"""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mst_transfer.engine.fit.devices import all_dicts
from mst_transfer.engine.resume.loader import ExactLoader
from mst_transfer.registry import LOOPS
from mst_transfer.runs.counter_random import Stream, derive_key, seed_iteration
from mst_transfer.runs.stop_hook import VALIDATED

RECORD = "exact_resume"  # entry of the checkpoint's message hub: what the iterations consist of
# They keep something from sample to sample, or from iteration to iteration, that no checkpoint has.
WITH_MEMORY = ("CachedMosaic", "CachedMixUp", "BatchSyncRandomResize")


def validation_is_due(done: int, last: int, begin: int, interval: int) -> bool:
    """Whether mmengine's loops validate after ``done`` of ``last`` epochs, or iterations."""
    return done >= max(begin, 1) and (done % interval == 0 or done == last)


class ResumeRefusedError(ValueError):
    """A checkpoint's iterations are not those of this run."""


class _ExactLoop:
    """What both loops share; a mixin before mmengine's class."""

    runner: Any
    dataloader: ExactLoader
    val_interval: int
    val_begin: int
    _iter: int
    _epoch: int
    _max_iters: int

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(dataloader, ExactLoader):
            different = (runner.cfg.get("randomness") or {}).get("diff_rank_seed", False)
            dataloader = ExactLoader(runner.build_dataloader(dataloader, runner.seed, different))
        super().__init__(runner, dataloader, *args, **kwargs)  # type: ignore[call-arg]

    def run(self) -> torch.nn.Module:
        """Trains from wherever the runner has resumed.

        Raises:
            ResumeRefusedError: the checkpoint's iterations are not those of this run.
        """
        self._get_ready()
        self.runner.call_hook("before_train")
        self._train()
        self.runner.call_hook("after_train")
        return self.runner.model

    def _train(self) -> None:
        raise NotImplementedError

    def run_iter(self, *args: Any) -> None:
        """One iteration, between its hooks."""
        self._seed_iteration(self._iter)
        super().run_iter(*args)  # type: ignore[misc]

    def _get_ready(self) -> None:
        """After the runner has resumed, before the first hook."""
        self.seed = int(self.runner.seed)  # of the checkpoint, if it has one
        if (self.runner.cfg.get("randomness") or {}).get("diff_rank_seed"):
            self.seed -= get_rank()
        self.dataloader.set_seed(self.seed)
        self._check_record()
        self._recall_newest_checkpoint()
        self._warn()
        self._replay_open_window()

    def _accumulation(self) -> int:
        return int(getattr(self.runner.optim_wrapper, "_accumulative_counts", 1))

    def _check_record(self) -> None:
        """Refuses to go on with other iterations than the run was started with; writes down what they consist of.

        Raises:
            ResumeRefusedError: names what differs.
        """
        batches, hub = self.dataloader.batches, self.runner.message_hub
        ours = {
            "samples": batches.num_samples,
            "samples of an iteration": batches.global_batch,
            "accumulated iterations": self._accumulation(),
        }
        record = dict(hub.runtime_info.get(RECORD) or {})
        differing = [
            f"{name} {record[name]}, this one has {value}"
            for name, value in ours.items()
            if record.get(name, value) != value
        ]
        if differing:
            raise ResumeRefusedError(
                f"the checkpoint's run had {'; '.join(differing)}: its iterations would not fit. "
                "Next step: resume with the same data, batch_size × processes and accumulation; or start anew in "
                "another work dir with load_from; or set exact_resume=False, and mmengine goes on as well as it can"
            )
        if batches.aspect_unit is not None:
            batches.aspect_unit = record.get("aspect unit") or batches.aspect_unit  # with fewer processes, it stays
        hub.update_info(RECORD, {**ours, "aspect unit": batches.aspect_unit})

    def _recall_newest_checkpoint(self) -> None:
        """Tells checkpoint hooks of the one resumed from: they write it again if its validation is the best so far."""
        newest = self.runner.message_hub.runtime_info.get("last_ckpt")
        for hook in self.runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.last_ckpt is None:
                hook.last_ckpt = newest

    def _warn(self) -> None:
        """Says what may differ after resuming."""
        kinds = {str(node.get("type")) for node in all_dicts(dict(self.runner.cfg))}
        if found := sorted(kind for kind in kinds if kind.split(".")[-1] in WITH_MEMORY):
            text = f"exact resume: {', '.join(found)} remember earlier samples, and no checkpoint holds that"
            self.runner.logger.warning(text)

    def _replay_open_window(self) -> None:
        """Adds up the gradients of the iterations before this one that no optimizer step has followed yet."""
        runner, behind = self.runner, self._iter % self._accumulation()
        if not behind or self._iter >= self._max_iters:
            return
        runner.logger.info(
            f"gradients of {behind} accumulated iterations are computed again: none is lost, whatever mmengine warns of"
        )
        statistics = [buffer.clone() for buffer in runner.model.buffers()]
        runner.optim_wrapper.initialize_count_status(runner.model, self._iter - behind, self._max_iters)
        runner.model.train()
        batches = self.dataloader.from_iteration(self._iter - behind)
        for iteration in range(self._iter - behind, self._iter):
            batch = next(batches)
            self._seed_iteration(iteration)
            runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        with torch.no_grad():
            for buffer, before in zip(runner.model.buffers(), statistics, strict=True):
                buffer.copy_(before)

    def _seed_iteration(self, iteration: int) -> None:
        seed_iteration(derive_key(self.seed, Stream.ITERATION, iteration, get_rank()))

    def _validate(self, done: int, last: int) -> None:
        """Validates if the interval says so: after ``done`` of ``last`` epochs, or iterations."""
        if self.runner.val_loop is None:
            return
        hub, due = self.runner.message_hub, validation_is_due(done, last, self.val_begin, self.val_interval)
        if due and hub.runtime_info.get(VALIDATED) != self._iter:
            hub.update_info(VALIDATED, self._iter)  # first, for the checkpoint that a new best result is written with
            self.runner.val_loop.run()


@LOOPS.register_module()
class ExactEpochLoop(_ExactLoop, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, resumed exactly, in the middle of an epoch too. Arguments are the same."""

    def _get_ready(self) -> None:
        super()._get_ready()
        done = self._iter - self._epoch * len(self.dataloader)
        if not 0 <= done <= len(self.dataloader):
            raise ResumeRefusedError(
                f"the checkpoint is of iteration {self._iter} in epoch {self._epoch + 1}, but an epoch has "
                f"{len(self.dataloader)} iterations. Next step: resume with the same data and batch_size × processes"
            )

    def _train(self) -> None:
        if self._iter == self._epoch * len(self.dataloader):
            self._decide_current_val_interval()
            self._validate(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            self._validate(self._epoch, self._max_epochs)

    def run_epoch(self) -> None:
        """What is left of the current epoch."""
        start = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for index, batch in enumerate(self.dataloader.of_epoch(self._epoch, start), start):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


@LOOPS.register_module()
class ExactIterLoop(_ExactLoop, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, resumed exactly and at once. Arguments are the same."""

    dataloader_iterator: Iterator[Any]

    def _train(self) -> None:
        self.runner.call_hook("before_train_epoch")
        self._decide_current_val_interval()
        self._validate(self._iter, self._max_iters)
        self.dataloader_iterator = self.dataloader.from_iteration(self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            self._validate(self._iter, self._max_iters)
        self.runner.call_hook("after_train_epoch")
