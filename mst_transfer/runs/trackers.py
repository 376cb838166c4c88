"""Trackers of a run, ``--track``: curves, config, pictures and figures in TensorBoard, MLflow or Weights & Biases.

Each is a vis backend of mmengine's behind a ``Tracker``, so that what it raises ends the tracking and not the run. By
what name they know the run stands in its work dir, and a resumed run goes on under it.
"""

import importlib.util
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.visualization import LocalVisBackend, MLflowVisBackend, TensorboardVisBackend, WandbVisBackend
from mmengine.visualization.vis_backend import BaseVisBackend

from mst_transfer.files.atomic_files import write_text_atomically

FILE = "trackers.json"  # in a work dir
PROJECT = "mst-transfer"


class _TensorBoard(TensorboardVisBackend):
    def __init__(self, folder: Path, known: dict[str, str]) -> None:
        super().__init__(str(folder / "tensorboard" / known["id"]))

    def add_page(self, folder: Path) -> None:
        self.experiment.add_text("card", (folder / "card.md").read_text(encoding="utf-8"))


class _MLflow(MLflowVisBackend):
    def __init__(self, folder: Path, known: dict[str, str]) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is silent holds the run up
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a data base would need more packages
        place = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlruns").absolute().as_uri()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        super().__init__(str(folder), exp_name=name, tracking_uri=place)
        self._folder, self._known = folder, known

    def _init_env(self) -> None:
        given = os.environ.get("MLFLOW_TRACKING_URI")
        super()._init_env()
        if given is None:  # MLflow sets it for its children: the next run has another folder
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        if "mlflow" in self._known:
            self._tracked_config_keys = dict[str, Any]()  # parameters are written once
        name = self._folder.absolute().name
        run = self._mlflow.active_run() or self._mlflow.start_run(self._known.get("mlflow"), run_name=name)
        self._known["mlflow"] = run.info.run_id
        write_text_atomically(self._folder / FILE, json.dumps(self._known))

    def _flatten(self, *args: Any, **kwargs: Any) -> dict:
        return {re.sub(r"[^\w./: -]", "_", name): value for name, value in super()._flatten(*args, **kwargs).items()}

    def add_image(self, name: str, image: Any, step: int = 0, **kwargs: Any) -> None:
        self.experiment.log_image(image, f"{Path(name).stem}_{step}.png")

    def close(self) -> None:
        if self._env_initialized:
            for log in sorted(self._folder.glob("[0-9]*/*.log")):
                self._mlflow.log_artifact(str(log), log.parent.name)
            self._mlflow.end_run()

    def add_page(self, folder: Path) -> None:
        for name in ("card.html", "card.md", "card.json"):
            self.experiment.log_artifact(str(folder / name))


class _WandB(WandbVisBackend):
    def __init__(self, folder: Path, known: dict[str, str]) -> None:
        name, project = folder.absolute().name, os.environ.get("WANDB_PROJECT", PROJECT)
        options = dict(id=known["id"], resume="allow", name=name, project=project, settings=dict(init_timeout=30))
        super().__init__(str(folder), options, [dict(name="*", step_metric="step")])

    def add_config(self, config: Any, **kwargs: Any) -> None:
        """mmengine's also sends every program below the current folder."""
        self.experiment.config.update(config.to_dict(), allow_val_change=True)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        self.experiment.log({**scalar_dict, "step": step})

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        self.add_scalars({name: value}, step)

    def add_page(self, folder: Path) -> None:
        with open(folder / "card.html", encoding="utf-8") as page:
            self.experiment.log({"card": self.experiment.Html(page)})


TRACKERS: dict[str, Any] = {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _WandB}


class Tracker:
    """A vis backend that never raises: after its first fault, which is told, and once it is closed it does nothing."""

    def __init__(self, name: str, backend: BaseVisBackend, say: Callable[[str], None]) -> None:
        self._name, self._backend, self._say, self._ended = name, backend, say, False

    def __getattr__(self, what: str) -> Any:
        return partial(self._call, what)

    @property
    def experiment(self) -> Any:
        """The backend's."""
        return self._backend.experiment

    def _call(self, what: str, *args: Any, **kwargs: Any) -> None:
        if self._ended:
            return
        self._ended = what == "close"
        try:
            getattr(self._backend, what)(*args, **kwargs)
        except Exception as error:  # of a library, a server or the disk
            self._ended = True
            with suppress(Exception):
                self._backend.close()  # else the next run of this process would be tracked as this one
            text = re.sub(r"//[^/\s@]*@", "//", str(error).strip().partition("\n")[0])  # no password of an address
            self._say(f"{self._name} tracks this run no longer, which goes on ({type(error).__name__}: {text})")


def check_trackers(names: Sequence[str]) -> list[str]:
    """The names, each once; a ValueError if a tracker is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            others = "mmengine's others: visualizer.vis_backends of the config"
            raise ValueError(f"--track {name}: it must be one of {', '.join(TRACKERS)}; {others}")
        if getattr(importlib.util.find_spec(name), "origin", None) is None:  # a folder wandb/ is no package
            raise ValueError(f"--track {name}: it is not installed. Next step: pip install {name}")
    return list(dict.fromkeys(names))


def open_trackers(
    names: Sequence[str], folder: str | os.PathLike, goes_on: bool, say: Callable[[str], None]
) -> dict[str, Tracker]:
    """Makes the trackers of a run, by their class in mmengine; nothing starts before the first call of one.

    ``goes_on``: the run is the one that was tracked in its work dir, ``folder``, before. ``say`` is told of faults.
    """
    if not names:
        return {}
    path, known = Path(folder) / FILE, dict[str, str]()
    if goes_on and path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
    else:
        known["id"] = f"{time.strftime('%Y%m%d_%H%M%S')}_{secrets.token_hex(3)}"
        write_text_atomically(path, json.dumps(known))
    backends = {name: TRACKERS[name](Path(folder), known) for name in names}
    return {type(one).__mro__[1].__name__: Tracker(name, one, say) for name, one in backends.items()}


def track(visualizer: Any, *args: Any) -> None:
    """Adds trackers, with the arguments of ``open_trackers``, to a visualizer, whose own backends no longer raise."""
    backends, say = visualizer._vis_backends, args[-1]
    for name, one in backends.items():
        if not isinstance(one, LocalVisBackend):
            backends[name] = Tracker(name, one, say)
    backends.update(open_trackers(*args))
