"""What a run saves of its config is the config; nothing that a saved config says is run."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mst_transfer.cli.main import main
from mst_transfer.configs import shipped
from mst_transfer.configs.keys import parse_cfg_options
from mst_transfer.configs.saved import (
    FILE,
    VARIABLE,
    ConfigRefusedError,
    read_config_of_run,
    read_saved_config,
    registered_types_only,
    write_saved_config,
)
from pretrain.run.train import main as pretrain


def write(folder: Path, text: str, name: str = FILE) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def with_types(node: Any) -> Any:
    """The value with the type of each container, in its order."""
    if isinstance(node, dict):
        return type(node), [(key, with_types(value)) for key, value in node.items()]
    return (type(node), [with_types(value) for value in node]) if isinstance(node, list | tuple) else (type(node), node)


@pytest.mark.parametrize("name", shipped.available_configs())
def test_every_shipped_config_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(shipped.shipped_config(name))
    write_saved_config(cfg, tmp_path / FILE)
    again = read_saved_config(tmp_path / FILE)
    assert with_types(again.to_dict()) == with_types(cfg.to_dict()) and again.filename == str(tmp_path / FILE)


def test_what_json_has_no_form_for_comes_back(tmp_path: Path) -> None:
    content = dict(
        map={0: "a", (1, 2): ("b", [()])},
        marked={"__tuple__": [1]},
        norms=[math.inf, -math.inf],
        name="\udc80ü",
        no=None,
    )
    write_saved_config(Config(content), tmp_path / FILE)
    again = read_saved_config(tmp_path / FILE).to_dict()
    assert with_types(again) == with_types(content)
    json.loads((tmp_path / FILE).read_text(), parse_constant=pytest.fail)  # any reader of JSON can read it


def test_a_value_that_is_no_data_is_named_and_an_older_file_stays(tmp_path: Path) -> None:
    write_saved_config(Config(dict(a=1)), tmp_path / FILE)
    with pytest.raises(TypeError, match=r"model\.0\.x=.* is a set"):
        write_saved_config(Config(dict(model=[dict(x={1})])), tmp_path / FILE)
    assert read_saved_config(tmp_path / FILE).a == 1 and [path.name for path in tmp_path.iterdir()] == [FILE]


REFUSED = {
    "program": "open(CANARY, 'w').close()",
    "list": "[1]",
    "twice": '{"a": 1, "a": 2}',
    "nan": '{"a": NaN}',
    "digits": '{"a": ' + "9" * 1_000_000 + "}",
    "depth": '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "nested": '{"a": ' + "[" * 150 + "]" * 150 + "}",
    "large": '{"a": "' + "x" * 5_000_000 + '"}',
    "reserved": '{"filename": "x"}',
    "tuple_of_text": '{"a": {"__tuple__": "ab"}}',
    "unhashable_key": '{"a": {"__items__": [[[1], 2]]}}',
    "tuple_at_the_top": '{"__tuple__": []}',
    "bases": '{"_base_": "evil.py"}',
    "custom_imports": '{"custom_imports": {"imports": ["evil"]}}',
    "os_system": '{"model": {"type": "os.system", "command": "touch CANARY"}}',
    "deep_name": '{"hooks": [{"type": "mmengine.fileio.io.rmtree"}]}',
    "function_of_a_library": '{"model": {"type": "mmengine.rmtree"}}',
    "unknown_scope": '{"model": {"type": "evil.Model"}}',
    "default_scope": '{"default_scope": "evil"}',
    "inner_scope": '{"model": {"_scope_": "evil", "type": "A"}}',
    "constructor": '{"optim_wrapper": {"constructor": "os.system"}}',
    "nms": '{"model": {"test_cfg": {"nms": {"type": "exec"}}}}',
    "warp_mode": '{"model": {"type": "mmdet.CameraMotionCompensation"}}',
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_run_saves_is_refused(name: str, tmp_path: Path, canary: Path, monkeypatch, capsys) -> None:
    write(tmp_path, f"open({str(canary)!r}, 'w').close()\n", "evil.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path, REFUSED[name].replace("CANARY", str(canary)))
    with pytest.raises(ConfigRefusedError) as refusal:
        read_saved_config(path)
    assert str(path) in str(refusal.value) and "Next step" in str(refusal.value) and len(str(refusal.value)) < 1000
    assert main(["check", str(path)]) == 1 and str(path) in capsys.readouterr().err


def test_types_that_are_not_registered_are_not_imported(tmp_path: Path, canary: Path, monkeypatch) -> None:
    """A plain name, too: mmengine takes it for a module."""
    write(tmp_path, f"open({str(canary)!r}, 'w').close()\n", "Evil.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("Evil", "os.system", "mmengine.rmtree"):
        with registered_types_only(), pytest.raises(RuntimeError, match=name):
            MODELS.build(dict(type=name))
        monkeypatch.setenv(VARIABLE, "1")
        with pytest.raises(RuntimeError, match=name):
            MODELS.build(dict(type=name))
        monkeypatch.delenv(VARIABLE)
    assert MODELS.get("torch.nn.Linear") is not None  # a user's own config may name any class


def test_the_program_of_a_run_is_read_only_where_it_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=FILE):
        read_config_of_run(tmp_path)
    program = write(tmp_path, "a = 1 + 1\n", "config.py")
    for path in (None, program):
        with pytest.raises(ConfigRefusedError, match=r"config\.py is a program.*--trust-config"):
            read_config_of_run(tmp_path, path=path)
    assert read_config_of_run(tmp_path, trusted=True).a == 2
    write(tmp_path, '{"a": 3}')
    assert read_config_of_run(tmp_path).a == 3 and read_config_of_run(tmp_path, trusted=True).a == 2


def test_the_commands_read_no_program_where_the_environment_says_so(
    tiny_seg_config: Path, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_saved_config(Config.fromfile(tiny_seg_config), tmp_path / FILE)
    evil = write(tmp_path, f"_base_ = './tiny_seg.py'\nopen({str(canary)!r}, 'w')\n", "evil.py")
    monkeypatch.setenv(VARIABLE, "1")
    assert main(["check", str(tmp_path / FILE)]) == 0
    for command in (["check", str(evil)], ["train", str(evil), "--check-only"], ["params", str(evil)]):
        assert main(command) == 1
        assert "evil.py is a program" in capsys.readouterr().err
    assert pretrain([str(evil)]) == 1 and VARIABLE in capsys.readouterr().err
    with pytest.raises(ConfigRefusedError):
        read_config_of_run(tmp_path, trusted=True, path=evil)
    monkeypatch.setenv(VARIABLE, "yes")
    assert main(["check", str(evil)]) == 1 and f"{VARIABLE}='yes' must be 1" in capsys.readouterr().err


def test_command_line_values_are_literals(canary: Path) -> None:
    texts = [f"__import__('os').system('touch{canary}')", "os.system", "1e3", "(1,[a,b])", "x=y", "None", "True"]
    values = list(parse_cfg_options(f"k.{i}={text}" for i, text in enumerate(texts)).values())
    assert values == [texts[0].rstrip("'"), "os.system", 1000.0, (1, ["a", "b"]), "x=y", None, True]
    for text in ("key=(1,2", "key=a(1,2)", "key=f(g(1,2))", "key"):
        with pytest.raises(ValueError, match="--cfg-options .*brackets" if "=" in text else "KEY=VALUE"):
            parse_cfg_options([text])


def test_a_run_leaves_its_config_as_data(tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What is tested from it is what was trained; a value that is no data costs the file, not the run."""
    work_dir = tmp_path / "run"
    words = ["train", str(tiny_seg_config), "--work-dir", str(work_dir), "--cfg-options", "train_cfg.max_epochs=1"]
    assert main(words) == 0
    program, data = Config.fromfile(work_dir / "tiny_seg.py"), read_config_of_run(work_dir)
    assert data.to_dict() == program.to_dict()  # mmengine sorts the names
    assert main(["test", str(work_dir / FILE), str(next(work_dir.glob("*.pth")))]) == 0
    assert (work_dir / "test" / "results.json").is_file() and data.train_cfg.max_epochs == 1
    with tiny_seg_config.open("a") as file:
        file.write("_set = {1}\n")
    assert main([*words, "--fresh"]) == 0
    assert not (work_dir / FILE).exists() and (work_dir / "earlier_1" / FILE).is_file()
    assert "_set={1} is a set" in "".join(path.read_text() for path in work_dir.glob("*/*.log"))
