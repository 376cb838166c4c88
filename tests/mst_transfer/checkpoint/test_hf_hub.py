"""Weights by their address on a hub, which is a thread here: downloads, cache, and refusals that say what to do."""

import json
import pickle
import re
import sys

import pytest
import torch
from fake_hub import TOKEN
from malicious_files import harms
from safetensors.torch import save
from small_vit import make_vit, with_prefix

from mst_transfer import load_backbone
from mst_transfer.checkpoint import read_backbone
from mst_transfer.checkpoint.hf_hub import fetch, parse_address
from mst_transfer.cli.main import main


@pytest.fixture
def model():
    return make_vit()


@pytest.fixture
def content(model, tmp_path, saved):
    """A file with our metadata."""
    return saved[1].read_bytes()


@pytest.fixture
def no_pause(monkeypatch):
    """Nobody waits between attempts; how often somebody would."""
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch.cache_clear()


def test_a_repository_loads_and_the_report_names_file_and_commit(hub, content, saved, capsys):
    commit = hub.add("lab/vit", {"model.safetensors": content, "other.pth": b"", "README.md": b"x"})
    model, report = load_backbone("hf://lab/vit")
    full = f"hf://lab/vit/model.safetensors@{commit}"
    assert report.source == full and full in report.table() and len(report.loaded) == 30
    torch.testing.assert_close(model.blocks[1].mlp.fc1.weight, saved[0].blocks[1].mlp.fc1.weight, rtol=0, atol=0)
    asked = len(hub.asked)
    read_backbone(full)
    assert len(hub.asked) == asked
    read_backbone("hf:/lab/vit")  # as pathlib has it: asks whether it is the newest, and downloads nothing
    assert hub.asked[asked:] == ["GET /api/models/lab/vit", "HEAD /lab/vit/resolve/main/model.safetensors"]
    assert main(["inspect", "hf://lab/vit", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["file"]["path"] == full and facts["file"]["bytes"] == len(content) and "provenance" in facts["names"]


def test_a_revision_is_a_branch_or_a_commit(hub, content, saved):
    first = hub.add("lab/vit", {"model.safetensors": content})
    other = save({name: tensor + 1 for name, tensor in saved[0].state_dict().items()})
    second = hub.add("lab/vit", {"model.safetensors": other})
    hub.repositories["lab/vit"].branches["old"] = first
    for address, commit in (("hf://lab/vit@old", first), (f"hf://lab/vit@{first}", first), ("hf://lab/vit", second)):
        assert fetch(address)[1] == f"hf://lab/vit/model.safetensors@{commit}"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.safetensors", "b.pth", "b.bin"], "a.safetensors"),
        (["weights/b.pt", "config.json"], "weights/b.pt"),
        (["model.safetensors", "a.safetensors"], "model.safetensors"),
        (["a.safetensors", "b.safetensors"], "2 files could be meant: a.safetensors, b.safetensors"),
        (["pytorch_model.bin", "training_args.bin"], "2 files could be meant: pytorch_model.bin, training_args.bin"),
        (["README.md"], r"none of its files \(README.md\) are weights"),
    ],
)
def test_which_file_is_meant(hub, names, chosen):
    hub.add("lab/vit", dict.fromkeys(names, b"x"))
    if "." in chosen and " " not in chosen:
        assert f"/{chosen}@" in fetch("hf://lab/vit")[1]
        return
    with pytest.raises(ValueError, match=chosen):
        fetch("hf://lab/vit")
    assert fetch(f"hf://lab/vit/{names[0]}")[0].read_bytes() == b"x"


def test_what_an_address_says():
    assert parse_address("hf://a/b") == ("a/b", "", "")
    assert parse_address("hf://a/b.c") == ("a/b.c", "", "")
    assert parse_address("hf://a/b/x/y.pth@refs/pr/1") == ("a/b", "x/y.pth", "refs/pr/1")
    for wrong in ("hf://a", "hf://a/b/", "hf://a/b@", "hf://a/b@x@y", "hf://a b/c"):
        with pytest.raises(ValueError, match="must have the form"):
            parse_address(wrong)


def test_the_cache_serves_offline_and_where_the_hub_is_silent(hub, content, monkeypatch, no_pause):
    commit = hub.add("lab/vit", {"model.safetensors": content, "more.pth": b"x"})
    fetch("hf://lab/vit")
    offline(monkeypatch)
    asked = len(hub.asked)
    assert fetch("hf://lab/vit")[1].endswith(commit)
    with pytest.raises(ValueError, match=r"hf://lab/new: lab/new at http.*offline mode.*HF_HOME"):
        fetch("hf://lab/new")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE=1"):
        fetch("hf://lab/vit/more.pth")
    assert len(hub.asked) == asked
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.add("lab/steps", {"model.safetensors": content, "step_1.safetensors": content})
    fetch("hf://lab/steps/step_1.safetensors")
    fetch.cache_clear()
    offline(monkeypatch)
    with pytest.raises(ValueError, match=r"not known which of its files is meant; in the cache are step_1.safetensors"):
        fetch("hf://lab/steps")
    assert fetch("hf://lab/steps/step_1.safetensors")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    fetch.cache_clear()
    with pytest.warns(UserWarning, match=f"does not answer.*from the cache: commit {commit}"):
        assert fetch("hf://lab/vit")[1].endswith(commit)
    with pytest.raises(ValueError, match="hf://lab/new: lab/new at http://127.0.0.1:9: ConnectError"):
        fetch("hf://lab/new")
    assert no_pause == []  # one attempt each


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://lab/nothing", r"no repository lab/nothing.*\(401\).*hf auth login"),
        ("hf://lab/private", r"no repository lab/private.*hf auth login"),
        ("hf://lab/gated", r"lab/gated is gated.*ask for access at http://127.0.0.1:\d+/lab/gated.*hf auth login"),
        ("hf://lab/vit@nobranch", "lab/vit has no such file or revision"),
        ("hf://lab/vit/x.pth", "lab/vit has no such file.*leave FILE"),
    ],
)
def test_what_the_hub_refuses_is_told_with_the_next_step(hub, content, address, message):
    hub.add("lab/vit", {"model.safetensors": content})
    hub.add("lab/private", {"model.safetensors": content}, private=True)
    hub.add("lab/gated", {"model.safetensors": content}, gated=True)
    with pytest.raises(ValueError, match=f"^{address}: .*{message}"):
        read_backbone(address)


def test_a_wrong_token_is_told_and_not_shown(hub, content, monkeypatch, capsys, caplog):
    hub.add("lab/private", {"model.safetensors": content}, private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    read_backbone("hf://lab/private")
    monkeypatch.setenv("HF_TOKEN", "hf_mistypedmistyped")
    for command in (
        ["inspect", "hf://lab/private"],
        ["convert", "hf://lab/private", "--to", "mst", "-o", "x.safetensors"],
    ):
        fetch.cache_clear()
        assert main(command) == 1
    told = capsys.readouterr()
    assert re.search("the hub refuses the token for lab/private.*hf auth login", told.err)
    assert "mistyped" not in told.err + told.out + caplog.text


def test_a_lost_connection_leaves_no_half_file(hub, content, tmp_path, no_pause):
    """It is taken up where it was lost; lost for good, nothing passes for the file, and the next attempt is whole."""
    hub.add("lab/vit", {"model.safetensors": content})
    hub.cuts = [50_000]
    assert fetch("hf://lab/vit")[0].read_bytes() == content and len(no_pause) == 1
    hub.add("lab/other", {"model.safetensors": content[:-1] + b"x"})
    hub.cuts = [50_000] + [0] * 20
    with pytest.raises(ValueError, match=r"hf://lab/other: lab/other at http.*the same command again"):
        fetch("hf://lab/other")
    assert len(no_pause) < 10
    snapshot = tmp_path / "home" / "hub" / "models--lab--other" / "snapshots"
    assert [file for file in snapshot.rglob("*") if file.is_file()] == []
    hub.cuts = []
    assert fetch("hf://lab/other")[0].read_bytes() == content[:-1] + b"x"


def test_a_truncated_download_is_refused(hub, content):
    hub.add("lab/vit", {"model.safetensors": content})
    hub.shortens = True
    with pytest.raises(ValueError, match=f"should be of size {len(content)} but has size {len(content) - 100}"):
        fetch("hf://lab/vit")
    hub.shortens = False
    assert fetch("hf://lab/vit")[0].read_bytes() == content


def test_downloads_pass_the_same_refusals(hub, canary, content):
    hub.add("lab/evil", {"x.pth": pickle.dumps(next(iter(harms(canary).values()))), "cut.safetensors": content[:-100]})
    with pytest.raises(ValueError, match="was refused.*could run code"):
        read_backbone("hf://lab/evil/x.pth")
    with pytest.raises(ValueError, match="cut short"):
        read_backbone("hf://lab/evil")


def test_a_foreign_file_says_where_it_was_converted_from(hub, model, tmp_path):
    commit = hub.add("lab/vit", {"model.safetensors": save(with_prefix(make_vit(num_heads=3, embed_dim=192), ""))})
    out = str(tmp_path / "ours.safetensors")
    assert main(["convert", "hf://lab/vit", "--to", "mst", "-o", out]) == 0
    assert read_backbone(out)[1].provenance["converted_from"] == f"hf://lab/vit/model.safetensors@{commit}"


def test_a_missing_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'mst-transfer\[hub\]'"):
        fetch("hf://lab/library")
