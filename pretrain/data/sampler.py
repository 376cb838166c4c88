"""The order of samples: a function of (seed, epoch), cut the same way whatever the number of devices."""

from collections.abc import Iterator, Sized

from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mst_transfer.runs.counter_random import sample_generator
from pretrain.registry import DATA_SAMPLERS

_STREAM_ORDER = 2


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler):
    """Yields keys (epoch, index) for one rank: plain batches of ``batch_size`` are its micro-batches.

    An epoch is a permutation of the data set that follows from (seed, epoch). Step t takes its positions t·G
    to (t+1)·G, where G = batch_size · world_size · accumulation_steps is the global batch; what does not fill
    a last step is left out and, the order changing, comes up in other epochs. Within a step the positions are
    laid out by micro-batch, then by rank: rank r's micro-batch a holds positions t·G + (a·world_size +
    r)·batch_size and on. Hence any split of the same G over ranks and accumulation trains on the same samples
    in each step.

    Args:
        dataset: anything with a length; its ``permute``, if it has one, turns a generator into a permutation.
        batch_size: samples of one rank's micro-batch: the ``batch_size`` of the DataLoader.
        accumulation_steps: micro-batches of a step.
        seed: of the order; None takes one that all ranks agree on.
        rank, world_size: of this process; None asks mmengine.

    Attributes:
        steps_per_epoch: optimiser steps in an epoch.

    Raises:
        ValueError: the data set is smaller than one global batch.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        accumulation_steps: int = 1,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("accumulation_steps", accumulation_steps)):
            if value < 1:
                raise ValueError(f"{name}={value} is not allowed: it must be at least 1.")
        this_rank, this_world_size = get_dist_info()
        self.rank = this_rank if rank is None else rank
        self.world_size = this_world_size if world_size is None else world_size
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.seed = sync_random_seed() if seed is None else seed
        self.num_images = len(dataset)
        self._permute = getattr(dataset, "permute", lambda generator: generator.permutation(self.num_images))
        self.epoch = 0
        self.start_step = 0
        self.global_batch_size = batch_size * self.world_size * accumulation_steps
        self.steps_per_epoch = self.num_images // self.global_batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"The data set has {self.num_images} images, fewer than one global batch of "
                f"{self.global_batch_size} (batch_size {batch_size} x {self.world_size} processes x "
                f"accumulation_steps {accumulation_steps}). Lower batch_size or accumulation_steps, or add "
                "images."
            )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, from its first step on."""
        self.epoch = epoch
        self.start_step = 0

    def set_start_step(self, step_in_epoch: int) -> None:
        """Makes iterations of this epoch begin at a step, to resume; call it after ``set_epoch``."""
        if not 0 <= step_in_epoch <= self.steps_per_epoch:
            raise ValueError(
                f"step_in_epoch={step_in_epoch} is not allowed: an epoch has {self.steps_per_epoch} steps "
                f"({self.num_images} images, global batch {self.global_batch_size}). A run must be resumed "
                "with the data and the global batch it was started with."
            )
        self.start_step = step_in_epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, num_samples = self.epoch, self.steps_per_epoch * self.global_batch_size
        order = self._permute(sample_generator(self.seed, epoch, 0, stream=_STREAM_ORDER))
        batches = order[:num_samples].reshape(-1, self.world_size, self.batch_size)  # [micro-batches, W, B]
        for index in batches[self.start_step * self.accumulation_steps :, self.rank].flat:
            yield epoch, int(index)

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch, whatever the start step."""
        return self.steps_per_epoch * self.accumulation_steps * self.batch_size
