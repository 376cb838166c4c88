"""TimmSwin equals mmdet's, mmseg's and timm's Swin on the same weights, at any size, forward and backward."""

import importlib

import pytest
import timm
import torch
from torch import nn

from mst_transfer.checkpoint import BackboneMetadata, save_backbone
from mst_transfer.checkpoint.sources.swin import from_mm
from mst_transfer.devices import window_attention
from mst_transfer.models.backbones.swin import TimmSwin

ARCH = "swin_tiny_patch4_window7_224"
SMALL = dict(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4))
SIZES = [(224, 224), (100, 173), (33, 61), (256, 120)]


def disturb(model: nn.Module) -> nn.Module:
    """Weights as after training: no norm is 1, no bias is 0."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_pair(library: str, with_cp: bool = False, **options) -> tuple[TimmSwin, nn.Module]:
    """Our Swin and a library's, with the library's weights."""
    torch.manual_seed(0)
    kind = importlib.import_module(f"{library}.models.backbones.swin").SwinTransformer
    sizes = dict(embed_dims=8, depths=SMALL["depths"], num_heads=SMALL["num_heads"])
    theirs = kind(**sizes, **dict(window_size=7, drop_path_rate=0.0) | options)
    disturb(theirs)
    ours = TimmSwin(**SMALL, with_cp=with_cp, **options)
    ours.vit.load_state_dict(from_mm(theirs.state_dict()))
    return ours, theirs


def compare(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("library", "size"), [*(("mmdet", size) for size in SIZES), ("mmseg", SIZES[-1])])
def test_maps_equal_the_library(library, size):
    ours, theirs = make_pair(library)
    image = torch.randn(2, 3, *size)
    with torch.no_grad():  # the fused kernel
        maps = ours(image)
        compare(maps, theirs(image))
    assert [m.shape[1:] for m in maps] == [
        (8 * 2**i, -(-size[0] // (4 * 2**i)), -(-size[1] // (4 * 2**i))) for i in range(4)
    ]
    compare(ours(image), maps)  # step by step


@pytest.mark.parametrize("options", [dict(), dict(with_cp=True), dict(window_size=4)], ids=str)
@pytest.mark.parametrize("size", [(224, 224), (100, 173)])
def test_gradients_equal_mmdet(options, size):
    ours, theirs = (model.double() for model in make_pair("mmdet", **options))
    image = torch.randn(1, 3, *size, dtype=torch.double)
    images = [image.clone().requires_grad_() for _ in range(2)]
    weights = [torch.randn(1, 8 * 2**i, 1, 1, dtype=torch.double) for i in range(4)]
    for model, x in zip((ours, theirs), images, strict=True):
        maps = model(x)
        sum((weight * m.tanh()).sum() for weight, m in zip(weights, maps, strict=True)).backward()
    torch.testing.assert_close(images[0].grad, images[1].grad)
    expected = from_mm({name: parameter.grad for name, parameter in theirs.named_parameters()})
    found = {name: parameter.grad for name, parameter in ours.vit.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)
        assert gradient.abs().max() > 0, name


def test_fused_kernel_equals_the_steps_in_half_precision():
    ours, _ = make_pair("mmdet")
    image = torch.randn(1, 3, 90, 70)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        steps = ours(image)
        with torch.no_grad():
            fused = ours(image)
    for a, b in zip(steps, fused, strict=True):
        torch.testing.assert_close(a, b, atol=0.2, rtol=0.05)


def test_gradients_of_the_fused_kernel_equal_those_of_the_steps(monkeypatch):
    """On CUDA training takes the fused kernel too; here PyTorch's own steps stand for it."""
    ours, _ = make_pair("mmdet")
    ours.double()
    image = torch.randn(2, 3, 100, 72, dtype=torch.double)
    gradients = []
    for fused in (False, True):
        if fused:
            monkeypatch.setattr(window_attention, "_needs_gradient", lambda *_: False)
        ours.zero_grad()
        sum(m.tanh().sum() for m in ours(image)).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in ours.named_parameters()})
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("arch", "size"), [(ARCH, 224), ("swin_s3_tiny_224", 224), ("swin_base_patch4_window12_384", 384)]
)
def test_maps_equal_timm_at_its_own_size(arch, size):
    torch.manual_seed(0)
    twin = disturb(timm.create_model(arch, num_classes=0, **SMALL)).eval()
    ours = TimmSwin(arch, out_norm="last", shift_single_windows=False, **SMALL).eval()
    ours.vit.load_state_dict({n: t for n, t in twin.state_dict().items() if not n.startswith("head")})
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        maps = ours(image)
        expected = twin.forward_intermediates(image, norm=True, intermediates_only=True)
    compare(maps, expected)
    pooled = twin.forward_head(twin.forward_features(image), pre_logits=True)
    torch.testing.assert_close(maps[-1].mean(dim=(2, 3)), pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_stochastic_depth_is_mmdets(rate):
    ours, theirs = make_pair("mmdet", drop_path_rate=rate)
    found = [getattr(block.drop_path1, "drop_prob", 0.0) for stage in ours.vit.layers for block in stage.blocks]
    expected = [block.attn.drop.drop_prob for stage in theirs.stages for block in stage.blocks]
    assert found == pytest.approx(expected) and max(found) == pytest.approx(rate)


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 3, 4])
def test_what_is_frozen_is_frozen_in_mmdet(frozen_stages):
    ours, theirs = make_pair("mmdet")
    theirs.frozen_stages = frozen_stages
    theirs.train()
    ours = TimmSwin(frozen_stages=frozen_stages, **SMALL).train()
    trainable = from_mm(
        {name: torch.tensor([p.requires_grad] * 4) for name, p in theirs.named_parameters() if "down" not in name}
    )
    trainable |= {
        f"layers.{i + 1}.downsample.{name}": torch.tensor([p.requires_grad])
        for i, stage in enumerate(theirs.stages[:3])
        for name, p in stage.downsample.named_parameters()
    }
    assert {n: p.requires_grad for n, p in ours.vit.named_parameters()} == {n: bool(t[0]) for n, t in trainable.items()}
    assert [stage.blocks.training for stage in ours.vit.layers] == [stage.training for stage in theirs.stages]
    assert ours.vit.patch_embed.training == theirs.patch_embed.training


@pytest.mark.parametrize("out_norm", ["all", "last", "none"])
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 3), (0, 2), (-1,)])
def test_no_parameter_is_without_use(out_indices, out_norm):
    """Distributed training stops at parameters that get no gradient."""
    ours = TimmSwin(out_indices=out_indices, out_norm=out_norm, **SMALL)
    maps = ours(torch.randn(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == list(ours.num_features)
    sum(m.square().sum() for m in maps).backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    norms = [name for name, module in ours.vit.named_children() if "norm" in name and isinstance(module, nn.LayerNorm)]
    last = out_indices[-1] in (3, -1)
    wanted = {"all": len(out_indices), "last": int(last), "none": 0}[out_norm]
    assert len(norms) == wanted and ("norm" in norms) == (last and out_norm != "none")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "teacher.safetensors")


def save_small(path, **changes):
    torch.manual_seed(0)
    kwargs = SMALL | dict(img_size=224) | changes
    source = disturb(timm.create_model(ARCH, num_classes=0, **kwargs))
    metadata = BackboneMetadata(ARCH, kwargs, 4, (224, 224), 8, (0.5,) * 3, (0.5,) * 3, "teacher")
    save_backbone(path, source.state_dict(), metadata)
    return source


def loaded(**options):
    ours = TimmSwin(**SMALL, **options)
    ours.init_weights()
    return ours


def test_load_reports_the_fresh_norms_and_starts_the_last_from_the_checkpoint(path, messages):
    source = save_small(path)
    ours = loaded(init_cfg=dict(type="Pretrained", checkpoint=path))
    assert "missing        6  norm0.weight, norm0.bias, norm1.weight" in messages[0]
    assert "unexpected     0" in messages[0]
    assert torch.equal(ours.vit.norm.weight, source.norm.weight)
    assert torch.equal(ours.vit.norm0.weight, torch.ones(8))


def test_norms_of_a_detector_are_taken_over_where_they_have_a_place(path, messages):
    _, theirs = make_pair("mmdet")
    path = path.replace("teacher.safetensors", "detector.pth")
    torch.save({"state_dict": {f"backbone.{n}": t for n, t in theirs.state_dict().items()}}, path)
    image = torch.randn(1, 3, 60, 80)
    for indices in ((0, 1, 2, 3), (1, 3)):
        ours = loaded(out_indices=indices, checkpoint=path)
        with torch.no_grad():
            compare(ours(image), [theirs(image)[index] for index in indices])
    assert "missing        0" in messages[1] and "unexpected     0" in messages[1]
    assert "skipped        4  norm0.weight, norm0.bias, norm2.weight, norm2.bias" in messages[1]


def test_pruned_stages_and_norms_may_be_in_the_file(path):
    source = save_small(path)
    ours = loaded(out_indices=(0, 1), out_norm="none", checkpoint=path)
    assert len(ours.vit.layers) == 2
    name = "layers.1.blocks.1.mlp.fc2.weight"
    assert torch.equal(ours.vit.state_dict()[name], source.state_dict()[name])


def test_stages_that_pre_training_saw_as_one_small_window(path):
    """At 96 px the last maps have 6 and 3 tokens a side, and so have their windows; here all have 7."""
    save_small(path, img_size=96)
    stages = loaded(checkpoint=path).vit.layers
    assert {block.attn.window_size for stage in stages for block in stage.blocks} == {(7, 7)}
    kept = loaded(window_size=(7, 7, 6, 3), checkpoint=path)
    assert len(kept.vit.layers[3].blocks[0].attn.relative_position_bias_table) == 25


def test_layers_are_mmpretrains_and_vectors_and_tables_get_no_weight_decay():
    """mmpretrain's rule: embedding 0, blocks counted through, merging with the last block before it, the rest last."""
    ours = TimmSwin(**SMALL)
    depths, expected = SMALL["depths"], {}
    for name, _ in ours.named_parameters():
        parts = name.split(".")
        if parts[1] == "patch_embed":
            expected[name] = 0
        elif parts[1] == "layers" and parts[3] == "blocks":
            expected[name] = sum(depths[: int(parts[2])]) + int(parts[4]) + 1
        elif parts[1] == "layers":
            expected[name] = sum(depths[: int(parts[2])])
        else:
            expected[name] = 9
    spared = ours.no_weight_decay()
    for name, parameter in ours.named_parameters():
        assert ours.get_layer_depth(f"backbone.{name}", "backbone.") == (expected[name], 10), name
        assert (name in spared) == (parameter.ndim == 1 or name.endswith("relative_position_bias_table")), name
    assert ours.get_layer_depth("neck.lateral_convs.0.conv.weight", "backbone.") == (9, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(arch="swin_tinny_patch4_window7_224"), "not a timm model; near names: swin_tiny"),
        (dict(arch="swinv2_tiny_window8_256"), "is no Swin Transformer of version 1, the only one that TimmSwin takes"),
        (dict(arch="vit_tiny_patch16_224", embed_dim=24, depth=1), "for a ViT take mst_transfer.TimmViTPyramid"),
        (dict(arch=ARCH, depth=3), "does not take all of .*depth"),
        (dict(arch=ARCH, strict_img_size=True), "does not take all of .*strict_img_size"),
        (dict(arch=ARCH, out_indices=(0, 4), **SMALL), r"out_indices=\(0, 4\) must increase within 0 … 3"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TimmSwin(**options)
