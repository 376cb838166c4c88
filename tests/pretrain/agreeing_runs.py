"""Pre-training and evaluation in one process of a group, and what they did: for ``run_group``."""

import json
from pathlib import Path
from typing import Any

import torch

BROKEN_STEP, BROKEN_SAMPLE_POSITION = 2, 5  # one sample of that step has a loss that is not a number


def pretrain(config: str, out: str, options: list[str], launcher: str) -> dict[str, Any]:
    """Trains through the command line's main; returns masks, samples, logs and the final model of this process."""
    from mst_transfer.runs.launch import rank
    from pretrain.masking import MaskGenerator
    from pretrain.model import MST
    from pretrain.run import train

    masks: dict[str, torch.Tensor] = {}
    kept: dict[str, Any] = {}
    generate, forward = MaskGenerator.__call__, MST.forward

    def record(self, importance, sample_ids, step, num_views, num_patches):
        mask = generate(self, importance, sample_ids, step, num_views, num_patches)
        for view, rows in enumerate(mask.view(num_views, len(sample_ids), -1)):
            masks.update({f"{step} {int(i)} {view}": row for i, row in zip(sample_ids, rows, strict=True)})
        return mask

    def break_one_sample(self, *args, **kwargs):
        kept["mst"] = self
        losses = forward(self, *args, **kwargs)
        if kwargs["step"] == BROKEN_STEP and broken in kwargs["index"].tolist():
            losses["loss"] = losses["loss"] * float("nan")
        return losses

    broken = json.loads((Path(config).parent / "broken.json").read_text())
    MaskGenerator.__call__, MST.forward = record, break_one_sample
    words = [config, "--work-dir", out, "--launcher", launcher, "--cfg-options", *options]
    history: dict[str, list[float]] = {}
    build = train.build_runner

    def build_and_keep(*args, **kwargs):
        runner = build(*args, **kwargs)
        kept["hub"] = runner.message_hub
        return runner

    train.build_runner = build_and_keep
    assert train.main(words) == 0
    for name, buffer in kept["hub"].log_scalars.items():
        history[name] = [float(value) for value in buffer.data[0]]
    state = {name: tensor.clone() for name, tensor in kept["mst"].state_dict().items()}
    records = len(list(Path(out).glob(f"nonfinite_step_{BROKEN_STEP}_rank_{rank()}.json")))
    return dict(masks=masks, history=history, state=state, records=records)


def evaluate(runs: list[tuple[str, list[str]]], launcher: str) -> dict[str, list]:
    """Runs ``eval_knn`` and ``eval_linear`` one after the other; returns their results and the classifiers' weights."""
    import torch.distributed as dist

    from mst_transfer.probes import main, protocols
    from mst_transfer.runs import launch

    leave, results, weights = launch.shutdown_distributed, [], []
    train = protocols.train_linear

    def train_and_keep(batches, probes, *rest):
        result = train(batches, probes, *rest)
        weights.append(probes.weight.detach().clone())
        return result

    protocols.train_linear = train_and_keep
    main.launch.shutdown_distributed = lambda: None  # the group serves them all
    for number, (program, words) in enumerate(runs):
        out = Path(f"{number}.json")
        assert main.main(program, [*words, "--out", str(out), "--launcher", launcher]) == 0
        if dist.is_initialized():
            dist.barrier()
        results.append({k: v for k, v in json.loads(out.read_text()).items() if k != "seconds"})
    leave()
    return dict(results=results, weights=weights)


def swin_step(processes: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    """Losses, gradients and centre of one micro-batch: of this process's share of four images."""
    from mst_transfer.devices.cpu_processes import CPUDistributedDataParallel
    from mst_transfer.runs import launch
    from pretrain.model import MST

    if processes > 1:
        launch.init_distributed("pytorch")  # first: the decoder's BatchNorm is chosen when it is built
    rank = launch.rank() if processes > 1 else 0
    torch.manual_seed(0)
    backbone = dict(arch="swin_tiny_patch4_window7_224", img_size=64, embed_dim=8, depths=(2, 1, 1, 1),
                    num_heads=(1, 2, 2, 4), window_size=4)  # fmt: skip
    head = dict(out_dim=32, hidden_dim=16, bottleneck_dim=8)
    mst = MST(backbone, head, dict(num=2), dict(channels=(8,) * 5)).train()
    batch = dict(
        global_crops=torch.randint(0, 256, (4, 2, 3, 64, 64), dtype=torch.uint8),
        local_crops=torch.randint(0, 256, (4, 2, 3, 32, 32), dtype=torch.uint8),
        index=torch.arange(4),
    )
    model = CPUDistributedDataParallel(mst, broadcast_buffers=False) if processes > 1 else mst
    mine = slice(rank * 4 // processes, (rank + 1) * 4 // processes)
    losses = model(**{name: tensor[mine] for name, tensor in batch.items()})
    losses["loss"].backward()
    losses = {name: loss.detach() for name, loss in losses.items()}
    gradients = {name: p.grad.clone() for name, p in mst.named_parameters() if p.requires_grad}
    del model  # gloo aborts now and then if the graph outlives the group
    if processes > 1:
        launch.shutdown_distributed()
    return losses, gradients, mst.dino_loss.center
