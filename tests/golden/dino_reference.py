"""What DINO's published code gives on the inputs of ``dino_inputs``; nothing here is computed by us.

All functions take its modules, which ``dino_code`` imports from a checkout.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import dino_inputs as inputs
import numpy as np
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.dino_step import dino_code  # noqa: E402, F401 - for those who import this module


def compute(dino: SimpleNamespace) -> tuple[dict[str, Tensor], dict[str, object]]:
    """All golden tensors, and what is not a tensor."""
    tensors = vit(dino) | head(dino) | loss(dino) | schedules(dino)
    trained, groups, cancelled = train(dino)
    defaults = vars(dino.main_dino.get_args_parser().parse_args([]))
    return tensors | trained, dict(defaults=defaults, groups=groups, cancelled=cancelled)


def build_vit(dino: SimpleNamespace, **options) -> nn.Module:
    """DINO's class with what its ``vit_small`` and others share."""
    img_size = [options.pop("img_size", 224)]
    norm_layer = partial(nn.LayerNorm, eps=1e-6)
    net = dino.vision_transformer.VisionTransformer(
        img_size=img_size, mlp_ratio=4, qkv_bias=True, norm_layer=norm_layer, **options
    )
    net.load_state_dict(inputs.fill(net.state_dict()))
    return net


@torch.no_grad()
def vit(dino: SimpleNamespace) -> dict[str, Tensor]:
    """Tokens, attention, features of the linear protocol, and stochastic depth."""
    net = build_vit(dino, **inputs.VIT).eval()
    golden = {}
    for view in inputs.VIEWS:
        images = inputs.images(view)
        golden[f"vit/{view}/cls_token"] = net(images)
        golden[f"vit/{view}/tokens"] = net.get_intermediate_layers(images[:1], 1)[0]
    golden["vit/96/attention"] = net.get_last_selfattention(inputs.images("96"))[:, :, 0].clone()
    for num_blocks, average in ((1, False), (3, False), (1, True)):
        golden[f"linear/{num_blocks}/{average}"] = linear_features(dino, net, num_blocks, average)
    deep = dino.vision_transformer.vit_tiny(drop_path_rate=0.1)
    golden["vit/drop_path"] = torch.tensor([getattr(b.drop_path, "drop_prob", 0.0) for b in deep.blocks])
    return golden


def linear_features(dino: SimpleNamespace, net: nn.Module, num_blocks: int, average: bool) -> Tensor:
    """What DINO's evaluation gives to the linear classifier."""
    seen: list[Tensor] = []

    class Spy(nn.Module):
        module = SimpleNamespace(num_labels=2)

        def forward(self, features: Tensor) -> Tensor:
            seen.append(features)
            return features.new_zeros(len(features), 2)

    dino.eval_linear.args = argparse.Namespace(arch="vit_small")
    batch = (inputs.images("96"), torch.zeros(2, dtype=torch.long))
    dino.eval_linear.validate_network([batch], net, Spy(), num_blocks, average)
    return seen[0]


def head(dino: SimpleNamespace) -> dict[str, Tensor]:
    """Logits, clipped gradients and their norms before."""
    net = dino.vision_transformer.DINOHead(inputs.VIT["embed_dim"], inputs.OUT_DIM, **inputs.HEAD)
    net.load_state_dict(inputs.fill(net.state_dict()))
    golden = {"head/logits": net(inputs.normal("class tokens", 5, inputs.VIT["embed_dim"])).detach()}
    gradients = inputs.head_gradients({n: p for n, p in net.named_parameters() if p.requires_grad})
    for name, gradient in gradients.items():
        net.get_parameter(name).grad = gradient
    golden["clip/norms"] = torch.tensor(dino.utils.clip_gradients(net, 3.0))
    golden.update({f"clip/{name}": net.get_parameter(name).grad for name in gradients})
    return golden


def build_loss(dino: SimpleNamespace, out_dim: int, schedule: dict) -> nn.Module:
    """DINO's class with a schedule of the teacher's temperature."""
    names = ("warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs", "epochs")
    return dino.main_dino.DINOLoss(out_dim, 2 + inputs.NUM_LOCAL, *(schedule[name] for name in names))


def loss(dino: SimpleNamespace) -> dict[str, Tensor]:
    """Value, gradient and centre at each of several updates, one an epoch."""
    criterion = build_loss(dino, inputs.OUT_DIM, inputs.LOSS)
    values, gradients, centers = [], [], []
    for step in range(inputs.NUM_CENTER_UPDATES):
        student, teacher = inputs.loss_inputs(step)
        student.requires_grad_(True)
        value = criterion(student.flatten(0, 1), teacher.flatten(0, 1), step)
        gradients.append(torch.autograd.grad(value, student)[0])
        values.append(value.detach())
        centers.append(criterion.center.clone())
    return {
        "loss/values": torch.stack(values),
        "loss/gradients": torch.stack(gradients),
        "loss/centers": torch.stack(centers),
    }


def schedules(dino: SimpleNamespace) -> dict[str, Tensor]:
    """float64 values of every step or epoch."""
    golden = {}
    for name, (base, final, epochs, steps, warmup) in inputs.COSINES.items():
        golden[f"cosine/{name}"] = torch.from_numpy(
            dino.utils.cosine_scheduler(base, final, epochs, steps, warmup_epochs=warmup)
        )
    for name, (start, end, warmup, epochs) in inputs.TEMPERATURES.items():
        criterion = dino.main_dino.DINOLoss(1, 2, start, end, warmup, epochs)
        golden[f"temperature/{name}"] = torch.from_numpy(np.asarray(criterion.teacher_temp_schedule))
    return golden


def build_network(dino: SimpleNamespace) -> nn.Module:
    """Backbone and head for the training run, at their initial weights."""
    head = dino.vision_transformer.DINOHead(inputs.TRAIN_VIT["embed_dim"], inputs.TRAIN["out_dim"], **inputs.TRAIN_HEAD)
    head.load_state_dict(inputs.fill(head.state_dict()))
    return dino.utils.MultiCropWrapper(build_vit(dino, **inputs.TRAIN_VIT), head)


def train(dino: SimpleNamespace) -> tuple[dict[str, Tensor], list[list[str]], list[list[str]]]:
    """DINO's own ``train_one_epoch``; final weights, centre and losses, its parameter groups, its frozen names."""
    setup = inputs.TRAIN
    student = nn.parallel.DistributedDataParallel(build_network(dino))
    teacher = build_network(dino).requires_grad_(False)
    criterion = build_loss(dino, setup["out_dim"], setup)
    losses: list[float] = []
    criterion.register_forward_hook(lambda module, args, output: losses.append(output.item()))
    groups = dino.utils.get_params_groups(student)
    names = {id(p): n for n, p in student.module.named_parameters()}
    group_names = [sorted(names[id(p)] for p in group["params"]) for group in groups]
    optimizer = torch.optim.AdamW(groups)

    def cosine(base: float, final: float, **options: int) -> np.ndarray:
        return dino.utils.cosine_scheduler(base, final, setup["epochs"], setup["steps_per_epoch"], **options)

    lr = cosine(setup["base_lr"] * setup["batch_size"] / 256, setup["min_lr"], warmup_epochs=setup["warmup_epochs"])
    weight_decay = cosine(setup["weight_decay"], setup["weight_decay_end"])
    momentum = cosine(setup["teacher_momentum"], 1)
    args = argparse.Namespace(**{name: setup[name] for name in ("epochs", "clip_grad", "freeze_last_layer")})
    normalize = dino.main_dino.DataAugmentationDINO((0.4, 1), (0.05, 0.4), 1).local_transfo.transforms[-1]
    cancelled = []
    for epoch in range(setup["epochs"]):
        batches = []
        for step in range(epoch * setup["steps_per_epoch"], (epoch + 1) * setup["steps_per_epoch"]):
            views = [view for crops in inputs.crops(step) for view in crops.unbind(1)]
            to_tensor = [[normalize(image.permute(1, 2, 0).numpy()) for image in view] for view in views]
            batches.append(([torch.stack(view) for view in to_tensor], None))
        dino.main_dino.train_one_epoch(
            student, teacher, teacher, criterion, batches, optimizer, lr, weight_decay, momentum, epoch, None, args
        )
        without = [n for n, p in student.module.named_parameters() if p.requires_grad and p.grad is None]
        cancelled.append(sorted(without))
    golden = {f"train/student/{name}": tensor.clone() for name, tensor in student.module.state_dict().items()}
    golden.update({f"train/teacher/{name}": tensor.clone() for name, tensor in teacher.state_dict().items()})
    golden["train/center"], golden["train/losses"] = criterion.center, torch.tensor(losses)
    return golden, group_names, cancelled


def knn(dino: SimpleNamespace) -> list[dict[str, float]]:
    """Accuracies of DINO's k-NN classifier."""
    results = []
    for seed in range(3):
        train, train_labels, val, val_labels = inputs.clusters(seed)
        train, val = nn.functional.normalize(train, dim=1), nn.functional.normalize(val, dim=1)
        for k, temperature in inputs.KNN_SETTINGS:
            top1, _ = dino.eval_knn.knn_classifier(train, train_labels, val, val_labels, k, temperature, num_classes=7)
            results.append({"seed": seed, "k": k, "temperature": temperature, "top1": top1})
    return results
