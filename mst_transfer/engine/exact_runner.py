"""mmengine's Runner with the exact loops in the place of mmengine's; the config stays as it was written."""

from typing import Any

from mst_transfer.engine.checked_images import CheckedRunner

SWITCH = "exact_resume"  # entry of a config; False: mmengine's own loops
_COUNTERPARTS = {"EpochBasedTrainLoop": "ExactEpochLoop", "IterBasedTrainLoop": "ExactIterLoop"}


class ExactRunner(CheckedRunner):
    """A Runner whose runs, killed at any moment and resumed, end as if nothing had happened."""

    def build_train_loop(self, loop: Any) -> Any:
        """mmengine's, or, for its two loops, :mod:`~mst_transfer.engine.resume.exact_loops`."""
        if isinstance(loop, dict):
            exact = exact_train_cfg(loop)
            if exact is None:
                self.logger.warning(
                    f"train_cfg.type={loop.get('type')!r} is a loop of its own: whether it resumes exactly is up to it"
                )
            else:
                loop = exact
        return super().build_train_loop(loop)


def exact_train_cfg(train_cfg: dict[str, Any]) -> dict[str, Any] | None:
    """The config of the exact loop that does what ``train_cfg`` says; None for loops that have no exact counterpart."""
    rest = {name: value for name, value in train_cfg.items() if name not in ("type", "by_epoch")}
    kind = train_cfg.get("type")
    if kind is None:
        kind = "EpochBasedTrainLoop" if train_cfg.get("by_epoch", True) else "IterBasedTrainLoop"
    name = kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("mmengine.")
    return dict(rest, type=f"mst_transfer.{_COUNTERPARTS[name]}") if name in _COUNTERPARTS else None
