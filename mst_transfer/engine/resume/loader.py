"""A data loader that begins anywhere and whose samples do not depend on who loads them."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from mst_transfer.engine.resume.order import exact_batches
from mst_transfer.runs.counter_random import Stream, derive_key, seed_sample

_OWN = ("_inner", "seed")
# Options of the loader that an exact one stands in for
_KEPT = (
    "num_workers collate_fn pin_memory timeout worker_init_fn multiprocessing_context generator prefetch_factor "
    "persistent_workers"
).split()


class SeededDataset(Dataset):
    """A map-style data set whose sample ``(epoch, index)`` draws the same random numbers wherever it is loaded.

    The global generators are seeded before each sample, so that all below it is covered: pipelines, data sets that
    mix several images, the random replacement of a sample whose pipeline gave nothing. For everything else it is the
    data set that it wraps: attributes are read from and written to that.
    """

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        self._inner, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, key: Any) -> Any:
        """The sample of ``(epoch, index)``; an index alone is passed on, and draws from where the generators are."""
        if not isinstance(key, tuple):
            return self._inner[key]
        epoch, index = key
        seed_sample(derive_key(self.seed, Stream.SAMPLE, epoch, int(index)))
        return self._inner[index]

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name.startswith("__"):  # while unpickling, or torch's __getitems__, which skips seeds
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._inner, name, value)


class ExactLoader(DataLoader):
    """A loader as another one, with exact batches and seeded samples; workers start when a batch is asked for.

    The other must not have been iterated: some samplers remember.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.batches = exact_batches(loader.batch_sampler, loader.dataset)  # type: ignore[arg-type]
        kept = {name: getattr(loader, name) for name in _KEPT}
        super().__init__(SeededDataset(loader.dataset), batch_sampler=self.batches, **kept)

    def set_seed(self, seed: int) -> None:
        """The seed of order and samples; before the first batch."""
        self.batches.seed = self.dataset.seed = seed  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()

    def of_epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Batches ``start``, … of an epoch; those before are not loaded."""
        if start < len(self.batches):
            self.batches.seek(epoch, start)
            yield from self

    def from_iteration(self, iteration: int) -> Iterator[Any]:
        """Batches of all iterations from ``iteration`` on, epoch after epoch without end."""
        if self.batches.infinite:
            self.batches.seek(0, iteration)
            yield from self
        epoch, start = divmod(iteration, len(self.batches))
        while True:
            yield from self.of_epoch(epoch, start)
            epoch, start = epoch + 1, 0
