"""mmengine's Runner, which leaves its work dir as it was if it may not go on from the checkpoint to resume."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mst_transfer.configs import saved
from mst_transfer.runs.trackers import track
from mst_transfer.runs.workers import dismiss


class ResumingRunner(Runner):
    """A Runner that writes its config once the checkpoint to resume has been compared with it: before training begins.

    What stops it until then, here, in a hook or in the training loop, takes the folder of its log away again.
    """

    _accepted = False

    def __init__(self, work_dir: str, *args: Any, **kwargs: Any) -> None:
        self._resume = bool(kwargs.get("resume"))
        self._there = set(os.listdir(work_dir)) if os.path.isdir(work_dir) else set()
        with self._withdrawn_if_refused():
            super().__init__(*args, work_dir=work_dir, **kwargs)

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """mmengine's, with the trackers that the config's entry ``track`` names."""
        built = super().build_visualizer(visualizer)
        if is_main_process():
            track(built, self.cfg.get("track") or (), self.work_dir, self._resume, self.logger.warning)
        return built

    def dump_config(self) -> None:
        """mmengine's ``.py`` and the same as data, at once in a run that begins."""
        if not self._resume:
            self._dump_both()

    @master_only
    def _dump_both(self) -> None:
        program = Path(self.work_dir) / os.path.basename(self.cfg.filename or "")
        if not (program.is_file() and os.path.samefile(program, self.cfg.filename)):  # it stays as it was written
            super().dump_config()
        path = Path(self.work_dir) / saved.FILE
        try:
            saved.write_saved_config(self.cfg, path)
        except TypeError as error:
            path.unlink(missing_ok=True)  # an earlier run's would pass for this one's
            self.logger.warning(f"{path} is not written: {error}. Tools that read it need --trust-config for this run")

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """mmengine's; the first step of a resumed run is near, and nothing has refused it."""
        if fn_name == "before_train" and self._resume and not self._accepted:
            self._dump_both()
            self._accepted = True
        super().call_hook(fn_name, **kwargs)

    def build_train_loop(self, loop: Any) -> Any:
        """mmengine's."""
        with self._withdrawn_if_refused():
            return super().build_train_loop(loop)

    def train(self) -> Any:
        """mmengine's."""
        with self._running(), self._withdrawn_if_refused():
            return super().train()

    def val(self) -> Any:
        """mmengine's."""
        with self._running():
            return super().val()

    def test(self) -> Any:
        """mmengine's."""
        with self._running():
            return super().test()

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Around training, validation and tests: in the end workers are dismissed."""
        try:
            yield
        except BaseException:
            self.visualizer.close()  # else the next run of this process would be tracked as this one
            raise
        finally:
            for loop in (self._train_loop, self._val_loop, self._test_loop):
                loader = getattr(loop, "dataloader", None)
                dismiss(getattr(loader, "loader", loader))  # pre-training's groups batches

    @contextmanager
    def _withdrawn_if_refused(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            folder = str(getattr(self, "_log_dir", ""))
            own = os.path.basename(folder) not in {"", *self._there}
            if own and self._resume and not self._accepted:
                close_logs(folder)
                for kind in (MMLogger, MessageHub, Visualizer):  # the next run of this second has the same name
                    kind._instance_dict.pop(getattr(self, "_experiment_name", ""), None)
                if is_main_process():
                    shutil.rmtree(folder, ignore_errors=True)
            raise


def close_logs(folder: str | os.PathLike) -> None:
    """Lets go of log files in a folder that is about to be removed."""
    for logger in list(MMLogger._instance_dict.values()):
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler) and Path(folder) in Path(handler.baseFilename).parents:
                logger.removeHandler(handler)
                handler.close()
