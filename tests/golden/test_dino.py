"""With masking mode 'none' and without a decoder, pre-training is DINO: golden values of its published code.

``make_dino.py`` has written the golden values; weights and inputs are made anew here, the same ones.
"""

import argparse
import inspect

import dino_inputs as inputs
import pytest
import torch
from golden_files import agree, read

from mst_transfer.checkpoint import load_backbone
from mst_transfer.probes.attention import attention_maps
from mst_transfer.probes.features import class_tokens
from pretrain.backbones.vit import MaskedViT
from pretrain.data.augment import MultiCropOptions
from pretrain.head import DINOHead
from pretrain.losses import DINOLoss
from pretrain.model import MST
from pretrain.run.optim import PretrainOptimWrapper, parameter_groups
from pretrain.schedules import Schedule, cosine_schedule, teacher_temp_at

GOLDEN, TEXTS = read("dino.safetensors")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> MaskedViT:
    """Our backbone with DINO's weights, loaded from a file laid out as DINO's ``checkpoint.pth``."""
    backbone = MaskedViT(
        "vit_tiny_patch16_224", pos_embed_interpolation="dino", with_mask_token=False, **inputs.VIT
    ).eval()
    weights = inputs.fill(backbone.vit.state_dict())
    head = {"module.head.last_layer.weight_g": torch.ones(8, 1)}
    content = {
        "student": {f"module.backbone.{k}": torch.zeros_like(v) for k, v in weights.items()} | head,
        "teacher": {f"backbone.{k}": v for k, v in weights.items()},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small"),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    path = tmp_path_factory.mktemp("dino") / "checkpoint.pth"
    torch.save(content, path)
    report = load_backbone(backbone.vit, path)
    assert report.pos_embed_interpolation == "dino" and not (report.missing or report.unexpected or report.resized)
    return backbone.requires_grad_(False)


@pytest.mark.parametrize("view", inputs.VIEWS)
def test_backbone(vit, view):
    images = inputs.images(view)
    agree(f"class token at {view}", vit(images).cls_token, GOLDEN[f"vit/{view}/cls_token"], 1e-5)
    full = vit(images[:1], patch_tokens=True)
    tokens = torch.cat([full.cls_token[:, None], full.patch_tokens.flatten(1, 2)], dim=1)
    agree(f"all tokens at {view}", tokens, GOLDEN[f"vit/{view}/tokens"], 1e-5)


def test_timms_interpolation_is_another_one():
    """So the agreement above is the option's doing."""
    other = MaskedViT("vit_tiny_patch16_224", with_mask_token=False, **inputs.VIT).eval()
    other.vit.load_state_dict(inputs.fill(other.vit.state_dict()))
    difference = (other(inputs.images("96")).cls_token - GOLDEN["vit/96/cls_token"]).abs().max()
    assert difference > 0.01


def test_attention(vit):
    ours = attention_maps(vit.vit, inputs.images("96"))
    agree("attention of the class token at 96", ours.flatten(2), GOLDEN["vit/96/attention"][..., 1:], 1e-6)


@pytest.mark.parametrize(("num_blocks", "average"), [(1, False), (3, False), (1, True)])
def test_features_of_the_linear_protocol(vit, num_blocks, average):
    ours = class_tokens(vit.vit, inputs.images("96"), num_blocks, average)
    what = f"linear features, {num_blocks} blocks{' and patches' if average else ''}"
    agree(what, ours, GOLDEN[f"linear/{num_blocks}/{average}"], 1e-5)


def test_stochastic_depth():
    vit = MaskedViT("vit_tiny_patch16_224", drop_path_rate=0.1).vit
    ours = torch.tensor([getattr(block.drop_path1, "drop_prob", 0.0) for block in vit.blocks])
    agree("drop path of each block", ours, GOLDEN["vit/drop_path"], 1e-7)


def golden_head() -> DINOHead:
    head = DINOHead(inputs.VIT["embed_dim"], inputs.OUT_DIM, **inputs.HEAD)
    head.load_state_dict(inputs.fill(head.state_dict()))
    return head


def test_head():
    ours = golden_head()(inputs.normal("class tokens", 5, inputs.VIT["embed_dim"]))
    agree("head's logits", ours, GOLDEN["head/logits"], 1e-6)


def test_loss_gradient_and_center():
    loss, schedule = DINOLoss(inputs.OUT_DIM), inputs.LOSS
    values, gradients, centers = [], [], []
    for epoch in range(inputs.NUM_CENTER_UPDATES):
        student, teacher = inputs.loss_inputs(epoch)
        student.requires_grad_(True)
        names = ("warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs")
        temp = teacher_temp_at(epoch, *(schedule[name] for name in names))
        value, _ = loss(student, teacher, temp)
        gradients.append(torch.autograd.grad(value, student)[0])
        values.append(value.detach())
        loss.update_center()
        centers.append(loss.center.clone())
    agree("loss", torch.stack(values), GOLDEN["loss/values"], 1e-5)
    agree("gradient of the loss", torch.stack(gradients), GOLDEN["loss/gradients"], 1e-6)
    agree("centre after each of 6 updates", torch.stack(centers), GOLDEN["loss/centers"], 1e-6)


@pytest.mark.parametrize("name", inputs.COSINES)
def test_cosine_schedules(name):
    """float64; numpy's cosine and the C library's may differ in the last bit."""
    base, final, epochs, steps, warmup = inputs.COSINES[name]
    total = epochs * steps
    ours = [cosine_schedule(step, total, base, final, warmup * steps) for step in range(total)]
    agree(f"schedule: {name}", torch.tensor(ours, dtype=torch.float64), GOLDEN[f"cosine/{name}"], 1e-12, relative=True)


@pytest.mark.parametrize("name", inputs.TEMPERATURES)
def test_teacher_temperature(name):
    start, end, warmup, epochs = inputs.TEMPERATURES[name]
    ours = torch.tensor([teacher_temp_at(e, start, end, warmup) for e in range(epochs)], dtype=torch.float64)
    agree(f"teacher temperature: {name}", ours, GOLDEN[f"temperature/{name}"], 1e-12, relative=True)


def test_clipping_of_gradients():
    head = golden_head()
    trained = {name: p for name, p in head.named_parameters() if p.requires_grad}
    for name, gradient in inputs.head_gradients(trained).items():
        trained[name].grad = gradient
    norms = torch.stack([p.grad.norm() for p in trained.values()])
    agree("gradients' norms", norms, GOLDEN["clip/norms"], 1e-4)
    assert (norms > 3).any() and (norms < 3).any()
    optimizer = torch.optim.SGD([{"params": list(trained.values()), "apply_weight_decay": True}])
    joint = PretrainOptimWrapper(optimizer, clip_grad=3.0).clip_gradients()
    torch.testing.assert_close(joint, norms.norm())
    ours = torch.cat([p.grad.flatten() for p in trained.values()])
    theirs = torch.cat([GOLDEN[f"clip/{name}"].flatten() for name in trained])
    agree("clipped gradients", ours, theirs, 1e-6)


def dino_mst() -> MST:
    return MST(
        backbone=dict(arch="vit_tiny_patch16_224", pos_embed_interpolation="dino", **inputs.TRAIN_VIT),
        head=dict(out_dim=inputs.TRAIN["out_dim"], **inputs.TRAIN_HEAD),
        masking=dict(mode="none"),
        decoder=None,
    )


def test_parameter_groups():
    mst = dino_mst()
    names = {id(p): name for name, p in mst.student.named_parameters()}
    ours = [sorted(names[id(p)] for p in group["params"]) for group in parameter_groups(mst)]
    assert ours == [sorted(map(inputs.rename, group)) for group in TEXTS["groups"]]


def test_frozen_last_layer():
    """Names without a gradient after each epoch: the last layer's, in the first epoch."""
    mst = dino_mst()
    names = {id(p): name for name, p in mst.student.named_parameters()}
    last_layer = sorted(names[id(p)] for p in mst.last_layer_parameters() if p.requires_grad)
    for epoch, frozen in enumerate(TEXTS["cancelled"]):
        values = Schedule(warmup_epochs=0).at(2 * epoch, 2, inputs.TRAIN["epochs"], 256)
        assert ([] if values.train_last_layer else last_layer) == sorted(map(inputs.rename, frozen))


def test_defaults_are_those_of_dinos_command_line():
    """But for the teacher's temperature, which rises to 0.07 over 30 epochs, as DINO advises for long runs."""
    theirs, crops, head = TEXTS["defaults"], MultiCropOptions(), inspect.signature(DINOHead).parameters
    ours = {name: head[name].default for name in ("out_dim", "norm_last_layer")} | vars(Schedule())
    ours["clip_grad"] = inspect.signature(PretrainOptimWrapper).parameters["clip_grad"].default
    ours |= dict(global_scale=list(crops.global_scale), local_scale=list(crops.local_scale))
    ours["num_local_crops"] = crops.num_local_crops
    names = dict(base_lr="lr", teacher_momentum="momentum_teacher", freeze_last_layer_epochs="freeze_last_layer")
    names |= dict(global_scale="global_crops_scale", local_scale="local_crops_scale")
    names |= dict(num_local_crops="local_crops_number")
    same = ("min_lr", "warmup_epochs", "weight_decay", "weight_decay_end", "warmup_teacher_temp")
    for name in (*same, "out_dim", "norm_last_layer", "clip_grad", *names):
        assert ours[name] == theirs[names.get(name, name)], name
