"""Checkpoints of every public ViT code load completely and give the features that this code computes from them."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from live_sources import LIVE_EXAMPLES, MISSING
from source_examples import PLAIN, SourceExample, flatten, golden_examples, nest
from source_table import makers, measure

from mst_transfer.checkpoint import BackboneRefusedError, load_backbone
from mst_transfer.checkpoint.architecture import infer_architecture
from mst_transfer.checkpoint.read import find_backbone
from mst_transfer.checkpoint.recognise import is_derived_tensor, is_head_tensor
from mst_transfer.checkpoint.sources import SOURCES

GOLDEN = list(golden_examples())
TOLERANCE = 1e-5
# Weights of the second layer of the second block's MLP, of all networks of a file
LAST_MLP = re.compile(
    r"^(?!.*(attention|decoder)).*\.1\..*"
    r"(mlp\.(fc2|w3|weights_out|down_proj)|output\.dense|layers\.1|ffn\.w3)\.weight$"
)


def examples(in_memory: bool = True) -> list:
    """All of them, or those with the names of files: in memory transformers 5 has others."""
    live = [
        pytest.param(make, id=name, marks=pytest.mark.skipif(name in MISSING, reason="transformers is not installed"))
        for name, make in LIVE_EXAMPLES.items()
        if in_memory or not name.endswith("_memory")
    ]
    return [pytest.param(lambda example=example: copy.deepcopy(example), id=example.name) for example in GOLDEN] + live


@pytest.mark.parametrize("make", examples())
def test_loads_completely_with_the_features_of_its_own_code(make, tmp_path: Path):
    example: SourceExample = make()
    model, path = example.build(), example.write(tmp_path)
    report = load_backbone(model, path, pos_embed_interpolation=example.option or None)
    assert report.scheme == example.source
    assert report.pos_embed_interpolation == example.interpolation
    assert set(report.loaded) == set(model.state_dict())
    assert not report.resized and not report.missing and not report.unexpected
    assert not [n for n in report.skipped if not (is_head_tensor(n) or is_derived_tensor(n) or n.endswith(".k_bias"))]
    difference = example.largest_difference(model, report.pos_embed_interpolation)
    print(f"| {example.name} | {report.scheme} | {len(report.loaded)} tensors | {difference:.1e} |")
    assert difference <= TOLERANCE


@pytest.mark.parametrize("make", examples(in_memory=False))
def test_a_tensor_less_is_refused_by_name(make, tmp_path: Path):
    example: SourceExample = make()
    flat = flatten(example.content)
    left = {name: tensor for name, tensor in flat.items() if not LAST_MLP.search(name)}
    assert len(left) < len(flat)
    with pytest.raises(ValueError, match=r"blocks\.1\."):
        load_backbone(example.build(), replace(example, content=nest(left)).write(tmp_path))


@pytest.mark.parametrize("make", examples(in_memory=False))
def test_a_model_of_another_kind_is_refused(make, tmp_path: Path):
    """A plain ViT of the same size takes none of what it would have to leave out; a BEiT nothing of a plain ViT."""
    example: SourceExample = make()
    plain = example.arch.startswith("vit_tiny")
    options = PLAIN | dict(num_classes=0)
    arch = "beit_base_patch16_224" if plain else "vit_tiny_patch16_224"
    if example.arch_kwargs.get("init_values"):
        options["depth"] = 3
    with pytest.raises(BackboneRefusedError):
        load_backbone(timm.create_model(arch, **options), example.write(tmp_path))


@pytest.mark.parametrize("make", examples(in_memory=False))
def test_architecture_is_inferred_but_for_the_heads(make, tmp_path: Path, monkeypatch):
    """Width 16 has no customary heads, so two are made customary here."""
    example: SourceExample = make()
    path = example.write(tmp_path)
    if example.name == "mae":  # heads are not guessed
        with pytest.raises(BackboneRefusedError, match="width 16, for which no number of .* heads .*num_heads=…"):
            infer_architecture(find_backbone(path).tensors, str(path))
    for table in ("_HEADS", "_DINOV3_HEADS"):
        monkeypatch.setattr(f"mst_transfer.checkpoint.families.infer_vit.{table}", {16: 2})
    arch, options = infer_architecture(find_backbone(path).tensors, str(path))
    model = timm.create_model(arch, num_classes=0, **options).eval()
    load_backbone(model, path, pos_embed_interpolation=example.option or None)
    assert replace(example, views=example.views[:1]).largest_difference(model, "timm") <= TOLERANCE


def test_the_student_of_ibot_bears_its_mask_embedding(tmp_path: Path):
    example = next(example for example in GOLDEN if example.name == "ibot_full")
    report = load_backbone(example.build(), example.write(tmp_path), role="student")
    assert report.scheme == "iBOT" and "masked_embed" in report.skipped and report.pos_embed_interpolation == "dino"


def test_every_scheme_has_an_example():
    """But those of Swin, see test_swin.py, and iBOT's, which only its student bears."""
    if MISSING:
        pytest.skip("transformers is not installed")
    covered = {example.source for example in GOLDEN} | {make().source for make in LIVE_EXAMPLES.values()}
    names = [scheme.name for scheme in SOURCES]
    assert len(set(names)) == len(names)
    assert {name for name in names if "Swin" not in name} - {"iBOT"} == covered


@pytest.mark.parametrize("name", [*sorted(set(makers()) - set(LIVE_EXAMPLES)), *LIVE_EXAMPLES])
def test_every_source_takes_a_training_step_of_mmdet_and_of_mmseg(name: str):
    """Those of Swin too."""
    if name in MISSING:
        pytest.skip("transformers is not installed")
    row, sound = measure(makers()[name]())
    assert sound, row
