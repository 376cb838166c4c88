"""``mst push`` to a hub that is a thread here, and what timm, transformers and we load from there."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
import yaml
from fake_hub import TOKEN
from small_vit import make_metadata, make_vit

from mst_transfer.card.publish import model_card
from mst_transfer.checkpoint import ROLES, find_backbone, load_backbone, save_backbone
from mst_transfer.checkpoint.hf_hub import fetch
from mst_transfer.cli.main import main
from mst_transfer.export.source_model import read_source_model
from mst_transfer.files.checksums import sha256_of


@pytest.fixture
def run(tmp_path):
    """The work dir of a pre-training, and its teacher."""
    model = make_vit()
    metadata = make_metadata(provenance={"epoch": 3, "init_from": "/home/me/secret/dino.pth"})
    save_backbone(tmp_path / "run" / "teacher.safetensors", model.state_dict(), metadata)
    return tmp_path / "run", model.eval()


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def row(name, value, **others):
    common = dict(task="camvid", metric="mIoU", protocol="dense_knn", labels="10%", num_images=101, seeds=[0, 1])
    return {**common, "checkpoint": name, "value": value, "ci95": [value - 1, value + 1], **others}


@pytest.fixture
def card(run, tmp_path):
    content = dict(version=1, protocol_hash="9f2c61d07be3a448", checkpoints=[
        dict(name="mst", sha256=sha256_of(run[0] / "teacher.safetensors")), dict(name="random", sha256=""),
        dict(name="other", sha256="ab" * 32),
    ], rows=[row("mst", 18.25), row("other", 17.0), row("mst", 33.5, protocol="setr_pup")], differences=[
        dict(task="camvid", metric="mIoU", protocol="dense_knn", labels="10%", a="mst", b="random", primary=True,
             verdict="better: 2.1 points"),
        dict(task="camvid", metric="mIoU", protocol="setr_pup", labels="10%", a="mst", b="other", primary=False,
             verdict="no difference"),
    ])  # fmt: skip
    (tmp_path / "card.json").write_text(json.dumps(content))
    return tmp_path / "card.json"


def push(*words):
    return main(["push", *map(str, words)])


def test_timm_transformers_and_we_load_what_was_pushed(hub, token, run, card, capsys):
    folder, model = run
    assert push(folder, "lab/vit", "--card", card, "--license", "apache-2.0") == 0
    told = capsys.readouterr()
    commit = hub.repositories["lab/vit"].branches["main"]
    assert told.out.strip().endswith(f"{hub.url}/lab/vit/commit/{commit}") and TOKEN not in told.out + told.err
    files = hub.repositories["lab/vit"].commits[commit]
    assert {"README.md", "config.json", "model.safetensors"} <= files.keys()
    assert b"secret" not in b"".join(files.values())  # a folder of this machine
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(image)
        by_timm = timm.create_model("hf-hub:lab/vit", pretrained=True, num_classes=0).eval()
        torch.testing.assert_close(by_timm(image), expected, rtol=0, atol=0)
        assert tuple(by_timm.pretrained_cfg["mean"]) == (0.485, 0.456, 0.406)
        ours = make_vit().eval()
        report = load_backbone(ours, "hf://lab/vit")
        torch.testing.assert_close(ours(image), expected, rtol=0, atol=0)
    assert report.source == f"hf://lab/vit/model.safetensors@{commit}"
    again, before = (find_backbone(path).metadata for path in ("hf://lab/vit", folder / "teacher.safetensors"))
    assert again == replace(before, provenance={"epoch": 3, "init_from": "dino.pth"})


def test_transformers_loads_it_by_name(hub, token, run):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder, model = run
    assert push(folder, "lab/vit") == 0
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = transformers.AutoModel.from_pretrained("lab/vit").eval()
    with torch.no_grad():
        torch.testing.assert_close(found(image).pooler_output, model(image), rtol=0, atol=1e-5)


def test_the_model_card_holds_its_figures_alone_and_no_licence_that_was_not_asked_for(run, card):
    path = run[0] / "teacher.safetensors"
    content = json.loads(card.read_text())
    text = model_card("lab/vit", read_source_model(path), sha256_of(path), "mit", content)
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "timm" and front["license"] == "mit"
    assert "| camvid | mIoU | dense k-NN | 10% | 18.2 | 17.2 … 19.2 | 101 | 0, 1 |" in text
    assert "| camvid | mIoU | SETR-PUP, tuned | 10% | 33.5 | 32.5 … 34.5 | 101 | 0, 1 |" in text
    assert "17.0" not in text and "**mst** against **random**: better: 2.1 points" in text and "**other**" not in text
    assert 'timm.create_model("hf-hub:lab/vit"' in text and "hf://lab/vit random" in text
    plain = model_card("lab/vit", read_source_model(path), "", "", None)
    assert "license" not in yaml.safe_load(plain.split("---")[1]) and "Not measured" in plain
    with pytest.raises(ValueError, match="--license 'a: b' must be a name"):
        model_card("lab/vit", read_source_model(path), "", "a: b", None)
    with pytest.raises(ValueError, match=r"no figures of .*teacher.*its checkpoints are mst \(\w{12}\), other \(abab"):
        model_card("lab/vit", read_source_model(path), "cd" * 32, "", content)


def test_a_dry_run_makes_all_and_asks_nobody(hub, run, capsys):
    assert push(run[0], "lab/vit", "--dry-run", "--license", "mit") == 0
    told = capsys.readouterr().out
    assert all(words in told for words in ("license: mit", "model.safetensors  ", "nothing was sent to lab/vit"))
    assert hub.asked == [] and hub.repositories == {}


def test_a_private_repository_and_a_branch(hub, token, run, capsys):
    assert push(run[0] / "teacher.safetensors", "lab/vit", "--private", "--revision", "v1") == 0
    one = hub.repositories["lab/vit"]
    assert one.private and "model.safetensors" in one.commits[one.branches["v1"]]
    assert "model.safetensors" not in one.commits[one.branches["main"]]
    assert fetch("hf://lab/vit@v1")[1].endswith(one.branches["v1"])
    hub.add("lab/public", {"README.md": b""})
    before = dict(hub.repositories["lab/public"].branches)
    assert push(run[0], "lab/public", "--private") == 1
    assert "lab/public is there and public" in capsys.readouterr().err
    assert hub.repositories["lab/public"].branches == before


def test_figures_of_the_teacher_are_not_given_to_the_student(hub, token, run, card, tmp_path, capsys):
    both = {name: {f"backbone.{key}": value for key, value in run[1].state_dict().items()} for name in ROLES}
    torch.save(both, tmp_path / "dino.pth")
    content = json.loads(card.read_text())
    content["checkpoints"][0]["sha256"] = sha256_of(tmp_path / "dino.pth")
    card.write_text(json.dumps(content))
    words = [tmp_path / "dino.pth", "lab/vit", "--card", card, "--dry-run", "--role"]
    assert push(*words, "student") == 1 and "figures of the teacher in" in capsys.readouterr().err
    assert push(*words, "teacher") == 1 and "number of attention heads" in capsys.readouterr().err  # gets further


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lab"], "'lab' must have the form ORG/REPO"),
        (["lab/vit/x"], "'lab/vit/x' must have the form ORG/REPO"),
        (["others/vit"], "refuses the token for others/vit (HfHubHTTPError: 403 Forbidden: not with Bearer TOKEN"),
        (["lab/vit", "--card", "nothing/card.json"], "mst evaluate CHECKPOINT … --out nothing writes one"),
    ],
)
def test_what_cannot_be_pushed_is_told(hub, token, run, words, message, capsys):
    assert push(run[0], *words) == 1
    told = capsys.readouterr().err
    assert message in told and TOKEN not in told


def test_a_token_is_asked_for_before_anything_and_never_shown(hub, run, monkeypatch, capsys):
    assert push(run[0] / "nothing", "lab/vit") == 1
    assert "no token to write to lab/vit" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_mistypedmistyped")
    assert push(run[0], "lab/vit") == 1
    told = capsys.readouterr()
    assert "mst push lab/vit: the hub refuses the token for lab/vit" in told.err
    assert "mistyped" not in told.out + told.err


def test_without_a_network_one_attempt_is_made(hub, token, run, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    assert push(run[0], "lab/vit") == 1
    assert "mst push lab/vit: lab/vit at http://127.0.0.1:9: ConnectError" in capsys.readouterr().err and not pauses


def test_the_programs_take_the_hub_of_the_environment(hub, saved):
    """Cache, endpoint and token by huggingface_hub's own variables."""
    hub.add("lab/secret", {"model.safetensors": saved[1].read_bytes()}, private=True)
    command = [sys.executable, "-m", "mst_transfer.cli.main", "inspect", "hf://lab/secret"]
    shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_TOKEN": TOKEN})
    assert "hf://lab/secret/model.safetensors@" in shown.stdout and TOKEN not in shown.stdout + shown.stderr
