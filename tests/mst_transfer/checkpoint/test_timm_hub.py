"""Weights by timm's name: from a cache, and refusals that say what to do. No network is used."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from mst_transfer.checkpoint import load_backbone, read_backbone

NAME = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the hub with one model in it, and no network."""
    from huggingface_hub import constants

    revision = "0" * 40
    folder = tmp_path / f"models--timm--{NAME}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    model = timm.create_model("vit_tiny_patch16_224")
    save_file(model.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_OFFLINE", True, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return model


@pytest.mark.parametrize("address", [f"timm://{NAME}", f"timm:/{NAME}", "timm://vit_tiny_patch16_224"])
def test_weights_come_from_timms_cache(cache, address):
    tensors, metadata = read_backbone(address)
    assert metadata.arch == address.rpartition("/")[2]
    assert (metadata.patch_size, metadata.img_size, metadata.embed_dim) == (16, (224, 224), 192)
    assert metadata.mean == (0.5, 0.5, 0.5) and metadata.provenance["tag"] == "augreg_in21k_ft_in1k"
    assert metadata.pos_embed_interpolation == "timm"
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=(64, 96))
    report = load_backbone(model, address)
    assert report.resized == {"pos_embed": "14x14 -> 4x6"} and report.scheme == "timm, published"
    torch.testing.assert_close(model.blocks[3].mlp.fc1.weight, cache.blocks[3].mlp.fc1.weight, rtol=0, atol=0)
    assert "head.weight" not in tensors


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("timm://vit_tiny_patch61_224", "no model 'vit_tiny_patch61_224'; near: vit_tiny_patch16_224"),
        ("timm://vit_small_patch16_224.dino", "could not get the weights"),
        ("timm://vit_tiny_patch16_224.nonsense", r"could not get .*timm.list_pretrained\('vit_tiny_patch16_224"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_next_step(cache, address, message):
    with pytest.raises(ValueError, match=message) as refusal:
        read_backbone(address)
    if "could not" in message:
        assert all(word in str(refusal.value) for word in ("HF_HOME", "TORCH_HOME", "path of a downloaded file"))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing answers where the hub is; the list of attempts to reach it. Nobody waits for a second one."""
    import socket
    import time

    from huggingface_hub import close_session, constants

    attempts = []

    def refuse(*address, **options):
        attempts.append(address[0])
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: attempts.append(f"a pause of {seconds} s"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    close_session()
    yield attempts
    close_session()


def test_without_a_network_one_attempt_is_made(cache, no_network):
    with pytest.raises(ValueError, match="could not get the weights") as refusal:
        read_backbone("timm://vit_small_patch16_224.dino")
    assert len(no_network) == 1
    assert all(word in str(refusal.value) for word in ("Name or service not known", "HF_HUB_OFFLINE=1", "HF_HOME"))


def test_cached_weights_need_no_network(cache, no_network):
    tensors, _ = read_backbone(f"timm://{NAME}")
    torch.testing.assert_close(tensors["blocks.3.mlp.fc1.weight"], cache.blocks[3].mlp.fc1.weight, rtol=0, atol=0)
    assert no_network == []
