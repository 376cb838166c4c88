"""``mst inspect`` and ``mst convert`` as a user calls them."""

import json

import pytest
import timm
import torch
from small_vit import SMALL, make_vit

from mst_transfer.checkpoint import read_backbone
from mst_transfer.cli.main import main


def test_inspect_prints_a_table_or_json(saved, capsys) -> None:
    _, path = saved
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    columns = {line[:15].strip(): line[15:] for line in lines}
    assert columns["source"] == "MST" and columns["heads"] == "none" and columns["depth"] == "2"
    assert columns["would load"] == "yes: 30 loaded, 0 resized, 0 missing, 0 unexpected, 0 skipped"
    assert lines[-1].startswith('model = dict(backbone=dict(type="mst_transfer.TimmViTPyramid"')
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"]["width"] == 24


def test_inspect_refuses_what_cannot_be_read(tmp_path, capsys) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    assert main(["inspect", str(tmp_path / "x.safetensors")]) == 1
    assert "is broken" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nothing.pth")]) == 1
    assert "there is no backbone checkpoint" in capsys.readouterr().err
    torch.save(make_vit().state_dict(), tmp_path / "odd.pth")
    assert main(["inspect", str(tmp_path / "odd.pth")]) == 1
    assert "unknown" in capsys.readouterr().out


def test_convert_prints_the_comparison_and_how_to_load(saved, tmp_path, capsys) -> None:
    model, path = saved
    out = tmp_path / "out.pth"
    assert main(["convert", str(path), "--to", "timm", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "loaded again by timm.create_model" in printed and "32x32: largest difference 0.0e+00" in printed
    loaded = eval(printed.strip().splitlines()[-1], {"timm": timm})
    assert torch.equal(loaded.norm.bias, model.norm.bias)
    assert main(["convert", str(path), "--to", "timm", "-o", str(out)]) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert main(["convert", str(path), "--to", "timm", "-o", str(out), "--overwrite"]) == 0


def test_a_foreign_file_gets_metadata_from_the_command_line(tmp_path, capsys) -> None:
    torch.save(make_vit().state_dict(), tmp_path / "foreign.pth")
    command = ["convert", str(tmp_path / "foreign.pth"), "--to", "mst", "-o", str(tmp_path / "ours.safetensors")]
    assert main(command) == 1
    assert "Name the architecture" in capsys.readouterr().err and not (tmp_path / "ours.safetensors").exists()
    options = [f"{name}={value}" for name, value in SMALL.items()]
    command += ["--arch", "vit_tiny_patch16_224", "--arch-options", *options, "--mean", "0.5", "0.5", "0.5"]
    assert main([*command, "--std", "0.2", "0.2", "0.2"]) == 0
    _, metadata = read_backbone(tmp_path / "ours.safetensors")
    assert metadata.mean == (0.5, 0.5, 0.5) and metadata.arch_kwargs == SMALL
    assert "assumed" not in capsys.readouterr().out


def test_arguments_that_do_not_fit_are_refused(saved, capsys) -> None:
    base = ["convert", str(saved[1]), "-o", "x.pth", "--to"]
    for words in (["timm", "--size", "32", "32"], ["tensorflow"]):
        with pytest.raises(SystemExit):
            main(base + words)
    assert main([*base, "timm", "--arch-options", "depth"]) == 1
    assert "--arch-options 'depth': it must be KEY=VALUE" in capsys.readouterr().err
