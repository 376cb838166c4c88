"""mmengine's Runner whose training survives bad numbers and ends well when told to; the config stays as written."""

from typing import Any

from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner

from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.engine.fp32_losses import losses_in_fp32
from mst_transfer.engine.nonfinite import guarded
from mst_transfer.engine.nonfinite_hook import NonfiniteHook
from mst_transfer.runs.nonfinite_steps import DEFAULT_LIMIT
from mst_transfer.runs.resuming_runner import ResumingRunner
from mst_transfer.runs.stop_hook import StopHook
from mst_transfer.runs.workers import watch

LIMIT = "max_nonfinite_steps"  # entry of a config


class GuardedRunner(ResumingRunner):
    """A Runner with guarded optimizer wrappers, watched data loaders, and hooks for both and for signals.

    On the CPU its matrix products take the quicker library.
    """

    def build_train_loop(self, loop: Any) -> Any:
        """mmengine's; only a run that trains gets the hooks."""
        built = super().build_train_loop(loop)
        self.register_hook(NonfiniteHook(int(self.cfg.get(LIMIT, DEFAULT_LIMIT))), priority="VERY_HIGH")
        self.register_hook(StopHook(), priority="LOWEST")
        return built

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """Of the kind that the config says, guarded if there is a guard for it."""
        if isinstance(optim_wrapper, dict):
            optim_wrapper = guarded(optim_wrapper)
        built = super().build_optim_wrapper(optim_wrapper)
        if isinstance(built, AmpOptimWrapper):
            losses_in_fp32(self.model)
        return built

    def train(self) -> Any:
        """mmengine's."""
        with quick_products(get_device()):
            return super().train()

    def val(self) -> Any:
        """mmengine's."""
        with quick_products(get_device()):
            return super().val()

    def test(self) -> Any:
        """mmengine's."""
        with quick_products(get_device()):
            return super().test()

    def build_dataloader(self, dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> Any:
        """mmengine's, watched: see :mod:`mst_transfer.runs.workers`."""
        return watch(Runner.build_dataloader(dataloader, seed, diff_rank_seed))
