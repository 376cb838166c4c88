"""Whatever is in a file of weights or of annotations: it is read, or refused by an error that we document."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from coverage_loop import Fuzzer
from mutations import mutate_archive, mutate_bytes, mutate_json, mutate_safetensors
from safetensors.torch import load_file, save
from small_sets import coco_config, write_coco
from small_vit import dino_full, make_metadata, make_vit

from mst_transfer.checkpoint import load_backbone, read_backbone
from mst_transfer.checkpoint.architecture import infer_architecture
from mst_transfer.checkpoint.recognise import recognise

CHECKPOINT_CODE = ("mst_transfer/checkpoint", "_weights_only_unpickler", "mst_transfer/files/checksums")
ANNOTATION_CODE = ("mst_transfer/datasets",)
QUICK, LONG = 2.0, 20.0


def budgets(function: Callable) -> Callable:
    """Two seconds at every change, twenty with ``--faults``."""
    long = pytest.param(LONG, marks=pytest.mark.faults, id="long")
    return pytest.mark.parametrize("seconds", [pytest.param(QUICK, id="quick"), long])(function)


def check(fuzzer: Fuzzer, seeds: list[Any], seconds: float) -> None:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        fuzzer.run(seeds, seconds)
    print(f"{fuzzer.runs} inputs, {len(fuzzer.corpus)} kept, {len(fuzzer.seen)} steps of code reached")
    assert fuzzer.runs > len(seeds) and len(fuzzer.corpus) > len(seeds), "no mutation reached anything new"
    shown = "\n".join(f"{place}: {_shown(found)[:1500]}" for place, found in fuzzer.findings.items())
    if shown:
        pytest.fail(shown, pytrace=False)


def _shown(found: Any) -> str:
    tensors = isinstance(found, dict) and all(isinstance(value, torch.Tensor) for value in found.values())
    return str({name: f"{value.dtype} {tuple(value.shape)}" for name, value in found.items()} if tensors else found)


def read_as(path: Path) -> Callable[[bytes], None]:
    """Writes the bytes and reads them as a user would: into a model, if they are weights."""
    model = make_vit()

    def target(data: bytes) -> None:
        path.write_bytes(data)
        tensors, metadata = read_backbone(path)
        if metadata is None:
            with contextlib.suppress(ValueError):
                infer_architecture(tensors, str(path))
        load_backbone(model, path)

    return target


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


@budgets
@pytest.mark.parametrize(
    ("kind", "mutate"), [("safetensors", mutate_safetensors), ("zip", mutate_archive), ("legacy", mutate_bytes)]
)
def test_files_of_weights(kind: str, mutate: Callable, seconds: float, tmp_path: Path) -> None:
    model = make_vit()
    if kind == "safetensors":
        seeds = [save(model.state_dict(), strings) for strings in (make_metadata().to_strings(), None)]
    else:
        nested = {"epoch": 1, "names": ["a"], "x": {"state_dict": {"cls_token": model.cls_token}}}
        contents = [model.state_dict(), nested] + ([dino_full(model, model)] if seconds > QUICK else [])
        seeds = [saved(content, _use_new_zipfile_serialization=kind == "zip") for content in contents]
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    check(Fuzzer(read_as(path), mutate, (ValueError,), CHECKPOINT_CODE), seeds, seconds)


def mutate_layout(rng: random.Random, tensors: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Names and shapes of a file of another project, changed."""
    changed = dict(tensors)
    for _ in range(rng.randint(1, 4)):
        name = rng.choice(list(changed) or ["x"])
        tensor = changed.pop(name, torch.zeros(1))
        kind = rng.randrange(8)
        if kind == 0:
            continue
        if kind == 1:
            name = rng.choice(list(other) or ["y"])
        elif kind == 2:
            parts = name.split(".")
            del parts[rng.randrange(len(parts))]
            name = ".".join(parts) or "z"
        elif kind == 3:
            name = rng.choice(("teacher.", "module.", "student.backbone.", "", ".")) + name
        elif kind == 4:
            shape = [rng.choice((0, 1, 2, 3, 7, 8, size)) for size in tensor.shape]
            tensor = torch.zeros(shape[: rng.randint(0, len(shape))])
        elif kind == 5:
            tensor = tensor.to(rng.choice((torch.float16, torch.int64, torch.bool, torch.complex64)))
        elif kind == 6:
            name = name.replace("0", str(rng.choice((1, 2, 10**9, -1))), 1)
        else:
            tensor = tensor.transpose(0, -1) if tensor.dim() else tensor[None]
        changed[name] = tensor
    return changed


@budgets
def test_layouts_of_other_projects(seconds: float, root: Path) -> None:
    model = make_vit()
    files = sorted((root / "tests" / "golden" / "sources").glob("*.safetensors"))
    seeds = [load_file(file) for file in (files if seconds > QUICK else files[::6])]
    seeds = [{name: tensor for name, tensor in seed.items() if tensor.numel() < 20_000} for seed in seeds]
    seeds.append(model.state_dict())

    def target(tensors: dict[str, Any]) -> None:
        found = recognise(tensors, None, "a file").tensors
        if len(str(sorted(tensors))) % 8 == 0:  # it builds a model, which takes long
            infer_architecture(found, "a file")

    check(Fuzzer(target, mutate_layout, (ValueError,), CHECKPOINT_CODE), seeds, seconds)


@budgets
def test_layouts_into_a_model(seconds: float, tmp_path: Path) -> None:
    model, path = make_vit(), tmp_path / "a.pth"

    def target(tensors: dict[str, Any]) -> None:
        torch.save(tensors, path)
        load_backbone(model, path)

    seeds = [{name: tensor.clone() for name, tensor in model.state_dict().items()}]
    check(Fuzzer(target, mutate_layout, (ValueError,), CHECKPOINT_CODE), seeds, seconds)


@budgets
@pytest.mark.parametrize("as_text", [False, True])
def test_annotations(as_text: bool, seconds: float, tmp_path: Path) -> None:
    from mst_transfer.engine.fit.infer_classes import infer_classes
    from mst_transfer.preflight.check import check_datasets

    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][1]["segmentation"] = {"counts": [9, 4, 4, 4, 43], "size": [8, 8]}
    content["annotations"][1]["iscrowd"] = 1
    check_datasets(coco_config(tmp_path))  # imports what takes seconds
    cfg, auto = coco_config(tmp_path), coco_config(tmp_path, classes="auto", num_classes=2)

    def target(value: Any) -> None:
        path.write_bytes(value if as_text else json.dumps(value).encode())
        with contextlib.suppress(ValueError, FileNotFoundError):
            list(infer_classes(auto.copy(), None))
        check_datasets(cfg)

    fuzzer = Fuzzer(target, mutate_bytes if as_text else mutate_json, (ValueError, FileNotFoundError), ANNOTATION_CODE)
    check(fuzzer, [json.dumps(content).encode() if as_text else content], seconds)


def test_the_loop_finds_what_is_hidden() -> None:
    """Behind four letters that must come one after the other: only coverage leads there."""

    def target(data: bytes) -> None:
        if data[:1] == b"F":
            if data[1:2] == b"U":
                if data[2:3] == b"Z":
                    raise KeyError("found")

    def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
        place = rng.randrange(4)
        return data[:place] + bytes([rng.randrange(65, 91)]) + data[place + 1 :]

    fuzzer = Fuzzer(target, mutate, (ValueError,), (__file__,))
    fuzzer.run([b"AAAA"], 2.0)
    assert any("KeyError" in place for place in fuzzer.findings)
