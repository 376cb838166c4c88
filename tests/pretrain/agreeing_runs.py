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
