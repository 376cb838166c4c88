"""Checkpoints of a card: names, and what is refused before anything runs."""

import hashlib
from pathlib import Path

import pytest
import torch
from small_vit import make_metadata, make_vit

from mst_transfer.card.checkpoints import open_checkpoints, parse_names
from mst_transfer.checkpoint import save_backbone


def save(path):
    """Writes a tiny ViT."""
    save_backbone(path, make_vit().state_dict(), make_metadata(mean=(0.5, 0.4, 0.3)))
    return str(path)


def test_names(tmp_path):
    weights = tmp_path / "run=1" / "teacher.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"")
    words = ["dino.pth", "mine=a/b.pth", str(weights), "timm://vit_small_patch16_224.dino", "random"]
    assert parse_names(words) == {
        "dino": "dino.pth",
        "mine": "a/b.pth",
        "run=1": str(weights),
        "vit_small_patch16_224.dino": "timm://vit_small_patch16_224.dino",
        "random": "random",
    }
    assert parse_names(["random:vit_small_patch16_224"]) == {"random": "random:vit_small_patch16_224"}


def test_two_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two checkpoints are called 'a'.*a_a=x/a.pth"):
        parse_names(["x/a.pth", "y/a.pth"])
    with pytest.raises(ValueError, match="'photo'"):
        parse_names(["photo.pth"])


def test_random_weights_take_the_architecture_of_the_first_and_differ_by_seed(tmp_path):
    given, floor = open_checkpoints([save(tmp_path / "a.safetensors"), "random"])
    assert (floor.arch, floor.arch_kwargs, floor.mean) == (given.arch, given.arch_kwargs, given.mean)
    assert (given.patch_size, given.embed_dim, floor.sha256) == (8, 24, "")
    assert tuple(floor.load_frozen(0).normalisation.mean) == tuple(given.mean) == (0.5, 0.4, 0.3)
    weights = [floor.load_frozen(seed).model.cls_token for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(given.load_frozen(0).model.cls_token, given.load_frozen(1).model.cls_token)


def test_the_digest_is_that_of_the_file(tmp_path):
    path = save(tmp_path / "a.safetensors")
    (one,) = open_checkpoints([path])
    assert one.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert "loaded" in one.load


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint"):
        open_checkpoints([])
    for missing in ("nope.pth", "random_init.pth"):
        with pytest.raises(FileNotFoundError, match=missing):
            open_checkpoints([missing])
    with pytest.raises(ValueError, match="random:vit_small"):
        open_checkpoints(["random"])
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="text.pth"):
        open_checkpoints([str(tmp_path / "text.pth")])
