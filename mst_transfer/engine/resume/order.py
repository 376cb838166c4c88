"""Orders samples into batches: a function of (seed, epoch, iteration), entered at any point at once.

An epoch is a stream of all samples, in an order that follows from (seed, epoch). Iteration t takes G = batch_size ×
processes of them, of which each process gets its part. Hence equal G means equal iterations, whatever the number of
processes.
"""

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain, count, islice
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, Sampler

from mst_transfer.runs.counter_random import Stream, derive_key

Key = tuple[int, int]  # epoch, index


class UnknownOrderError(ValueError):
    """Samples come in an order that nothing is known about."""


class ExactBatchSampler(Sampler[list[Key]]):
    """Batches of keys (epoch, index) for one process, in our own order, entered anywhere.

    The end of an epoch: samples that fill no whole batch make a smaller one, made divisible by the number of
    processes with the first samples of the epoch, as in mmengine's ``DefaultSampler``; or they are left out
    (``drop_last``). Without end (``infinite``), the next epoch follows in the same batch, as in ``InfiniteSampler``.

    Args:
        dataset: anything with a length, and with ``get_data_info`` if ``aspect_unit`` is given.
        batch_size: samples of one process and iteration.
        shuffle: permute each epoch, or keep the data set's order.
        infinite: whether epochs run into each other.
        drop_last: leave out an incomplete last batch.
        aspect_unit: as many consecutive samples of the stream are all wide or all tall, like mmdet's
            ``AspectRatioBatchSampler`` with that batch size; None: no grouping.

    Attributes:
        global_batch: samples of all processes and one iteration.
        seed: of the order; set it before iterating.

    Raises:
        ValueError: there is no whole batch and ``drop_last``, or no sample.
    """

    seed = 0
    _epoch = _start = 0

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        shuffle: bool = True,
        infinite: bool = False,
        drop_last: bool = False,
        aspect_unit: int | None = None,
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.infinite, self.drop_last, self.aspect_unit = infinite, drop_last, aspect_unit
        self.num_samples, self.global_batch = len(dataset), batch_size * self.world_size
        self._is_wide: dict[int, bool] = {}
        if len(self) == 0:
            raise ValueError(
                f"train_dataloader: {self.num_samples} samples make no batch of {self.global_batch} ({batch_size} a "
                f"process × {self.world_size} processes{', drop_last' if drop_last else ''}). Next step: lower "
                "batch_size, or add samples"
            )

    @property
    def sampler(self) -> Any:
        """Itself: mmengine sets the epoch of ``batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses an epoch, from its first batch on."""
        self.seek(epoch, 0)

    def seek(self, epoch: int, start: int) -> None:
        """Makes the next iteration begin at batch ``start`` of an epoch; of all batches, where they are infinite."""
        self._epoch, self._start = epoch, start

    def __len__(self) -> int:
        """Batches of an epoch."""
        if self.drop_last and not self.infinite:
            return self.num_samples // self.global_batch
        return -(-self.num_samples // self.global_batch)

    def __iter__(self) -> Iterator[list[Key]]:
        return self._infinite(self._start) if self.infinite else self._finite(self._epoch, self._start)

    def order(self, epoch: int) -> Iterator[int]:
        """All indices of an epoch."""
        indices: Iterable[int] = range(self.num_samples)
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_key(self.seed, Stream.ORDER, epoch))
            indices = torch.randperm(self.num_samples, generator=generator).tolist()
        return iter(indices) if self.aspect_unit is None else self._grouped(indices, self.aspect_unit)

    def _finite(self, epoch: int, start: int) -> Iterator[list[Key]]:
        stream = islice(self.order(epoch), start * self.global_batch, None)
        for _ in range(start, len(self)):
            indices = list(islice(stream, self.global_batch))
            missing = -len(indices) % self.world_size
            first = list(islice(self.order(epoch), missing))
            indices += [first[place % len(first)] for place in range(missing)]
            yield self._part([(epoch, index) for index in indices])

    def _infinite(self, start: int) -> Iterator[list[Key]]:
        epoch, position = divmod(start * self.global_batch, self.num_samples)
        epochs = (((later, index) for index in self.order(later)) for later in count(epoch))
        stream = islice(chain.from_iterable(epochs), position, None)
        while True:
            yield self._part(list(islice(stream, self.global_batch)))

    def _part(self, keys: Sequence[Key]) -> list[Key]:
        """This process's share of an iteration's keys."""
        size = len(keys) // self.world_size
        return list(keys[self.rank * size : (self.rank + 1) * size])

    def _grouped(self, indices: Iterable[int], unit: int) -> Iterator[int]:
        """The same indices, wide and tall ones in separate runs of ``unit``; what is left over comes last."""
        waiting: tuple[list[int], list[int]] = ([], [])
        for index in indices:
            group = waiting[self._wide(index)]
            group.append(index)
            if len(group) == unit:
                yield from group
                group.clear()
        yield from chain(*waiting)

    def _wide(self, index: int) -> bool:
        if index not in self._is_wide:
            info = self.dataset.get_data_info(index)  # type: ignore[attr-defined]
            self._is_wide[index] = bool(info["width"] >= info["height"])
        return self._is_wide[index]


def exact_batches(batches: Any, dataset: Sized) -> ExactBatchSampler:
    """The exact counterpart of a loader's batch sampler, on its data set.

    Raises:
        UnknownOrderError: it is not of mmengine's ``DefaultSampler`` or ``InfiniteSampler``, with or without mmdet's
            ``AspectRatioBatchSampler`` on top.
    """
    kind, sampler = type(batches), batches.sampler
    by_aspect = kind.__name__ == "AspectRatioBatchSampler" and kind.__module__.startswith("mmdet.")
    if type(sampler) not in (DefaultSampler, InfiniteSampler) or not (kind is BatchSampler or by_aspect):
        raise UnknownOrderError(f"the order of samples is that of {type(sampler).__name__} and {kind.__name__}")
    return ExactBatchSampler(
        dataset,
        batches.batch_size,
        shuffle=sampler.shuffle,
        infinite=type(sampler) is InfiniteSampler,
        drop_last=batches.drop_last,
        aspect_unit=batches.batch_size if by_aspect else None,
    )
