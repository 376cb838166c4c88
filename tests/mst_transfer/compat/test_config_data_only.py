"""Configs as data: the same as when they are run, and nothing in them runs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.config import Config

from mst_transfer.cli.main import main
from mst_transfer.compat import config_data_only
from mst_transfer.compat.config_budget import ConfigRefusedError
from mst_transfer.compat.config_data_only import VARIABLE, data_only, read_config
from mst_transfer.configs import shipped


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A path that must not exist when the test ends."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "the config was run"


def write(folder: Path, text: str, name: str = "config.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", shipped.available_configs())
def test_every_shipped_config_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_DATA_ROOT", "/some/where")
    path = shipped.shipped_config(name)
    run, read = Config.fromfile(path), read_config(path)
    assert read.to_dict() == run.to_dict() and list(read) == list(run)
    assert read.text == run.text and read.filename == run.filename
    assert read.env_variables == run.env_variables


def test_what_a_run_leaves_behind_is_the_same(tmp_path: Path) -> None:
    """The report reads the configs that runs wrote into their folders."""
    cfg = Config.fromfile(shipped.shipped_config("seg_configs/mst_setr_pup_camvid.py"))
    cfg.dump(tmp_path / "dumped.py")
    assert read_config(tmp_path / "dumped.py").to_dict() == Config.fromfile(tmp_path / "dumped.py").to_dict()


SAME = '''"""A docstring, {{$NOT_SET:of words}}."""
_base_ = ["./base.py"]
a, (b, c) = 1, (2.5, -3)
sizes = [(480 + 32 * i, 1333) for i in range(4) if i % 2 == 0]
names = {f"blocks.{i}.{part}": dict(lr_mult=0.5 ** i) for i in range(3) for part in ("attn", "mlp")}
joined = dict(**_base_.model, extra=[*sizes, a])
root = "{{$DATA_ONLY_TEST:/data}}/coco"
quoted = {{'$DATA_ONLY_NUMBER:80'}}
here = "{{ fileBasenameNoExtension }}"
from_base = {{_base_.model.depth}}
indexed = _base_.steps[1]
choice = "x" if a > 0 and not (b == 1 or c in (1, 2)) else None
words = f"{a:03d} {b:.2f} {root}"
counted = [max(1, 2), min([3, 4]), sum([1, 2]), len(sizes), abs(-1), round(2.6), int("7"), float("1e-3"), str(5)]
made = list(zip(["p", "q"], [1, 2])) + [tuple(sorted([2, 1]))] + list(enumerate(["z"]))
shared = dict(_delete_=True, type="mmdet.SiLU", depth=1)
model = shared
optim = shared
schedule = dict(step=a + b * 2 // 1, share=7 / 2, power=2 ** 8)
a += 1
c: int = 4
part = "abcdef"[1:3] + "-" * 3
'''


def test_every_construct_has_the_value_that_running_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "model = dict(type='A', depth=12)\noptim = dict(type='B')\nsteps = [8, 11]\n", "base.py")
    path = write(tmp_path, SAME)
    for value in (None, "/else where/ü"):
        if value:
            monkeypatch.setenv("DATA_ONLY_TEST", value)
        run, read = Config.fromfile(path), read_config(path)
        assert read.to_dict() == run.to_dict() and read.env_variables == run.env_variables


def test_the_environment_variable_and_the_block_switch_it_on(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, f"open({str(canary)!r}, 'w').close()\n")
    with data_only(), pytest.raises(ConfigRefusedError, match=r"config\.py:1: .*as data only.*Next step"):
        Config.fromfile(path)
    monkeypatch.setenv(VARIABLE, "1")
    for read in (
        Config.fromfile,
        lambda path: Config.fromstring(path.read_text(), ".py"),
        config_data_only.read_config,
    ):
        with pytest.raises(ConfigRefusedError):
            read(path)
    with pytest.raises(ConfigRefusedError):
        Config._get_base_files(str(write(tmp_path, f"_base_ = open({str(canary)!r}, 'w')", "base.py")))
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(ValueError, match="must be 1"):
        Config.fromfile(path)
    monkeypatch.setenv(VARIABLE, "0")
    with data_only():
        Config.fromfile(path)  # the user insists
    assert canary.exists()
    canary.unlink()


TOUCH = "open(CANARY, 'w').close()"
ATTACKS = {
    "import": "import os\n",
    "from_import": "from os import system\n",
    "lazy": "from mmengine.config import read_base\nwith read_base():\n    from .base import *\n",
    "call": TOUCH,
    "call_in_value": f"a = [{TOUCH}]",
    "dunder_import": "a = __import__('os').system('touch ' + CANARY)",
    "subclasses": "a = ().__class__.__base__.__subclasses__()",
    "format_attribute": "a = '{0.__class__}'.format(1)",
    "f_string_call": f"a = f'{{{TOUCH}}}'",
    "f_string_repr": "a = f'{[1]!r}'",
    "base_attribute": "_base_ = './base.py'\na = _base_.__class__",
    "base_method": "_base_ = './base.py'\na = _base_.get('x')",
    "base_call": f"_base_ = [{TOUCH}]",
    "lambda": "a = lambda: 0",
    "function": "def f():\n    pass\n",
    "class": "class A:\n    pass\n",
    "decorator": f"@{TOUCH[:-8]}\ndef f(): pass",
    "walrus": "a = [b := 1]",
    "starred_call": "a = dict(*[('type', 1)], **open(CANARY, 'w'))",
    "shadowed_builtin": "dict = 3\na = dict(x=1)",
    "assert": f"assert {TOUCH}",
    "delete": "a = 1\ndel a",
    "loop": "for i in range(3):\n    a = i\n",
    "condition": "if True:\n    a = 1\n",
    "try": "try:\n    a = 1\nexcept E:\n    pass",
    "slice_assign": "a = [1]\na[0] = 2",
    "bytes": "a = b'x'",
    "await": "a = [x async for x in y]",
    "default_argument": "a = max([1], default=2)",
    "key_function": "a = sorted([1], key=print)",
    "undefined": "a = system",
    "custom_imports": "custom_imports = dict(imports=['evil'], allow_failed_imports=False)",
    "type_os_system": "model = dict(type='os.system', command='touch ' + CANARY)",
    "type_subprocess": "hooks = [dict(type='subprocess.check_call', args='x', shell=True)]",
    "type_deep": "model = dict(type='mmengine.fileio.io.rmtree', dir_path='x')",
    "type_unknown_scope": "model = dict(type='evil.Model')",
    "scope": "default_scope = 'evil'",
    "inner_scope": "model = dict(_scope_='evil', type='A')",
    "nms_text": "model = dict(test_cfg=dict(nms=dict(type='exec')))",
    "camera_motion": "model = dict(type='CameraMotionCompensation', warp_mode='cv2.x')",
    "base_of_strange_package": "_base_ = 'os.path::x.py'",
    "own_base": "_base_ = './config.py'",
    "no_python": "a = (",
    "null": "a = '\0'",
    "environment": "a = '{{$SURELY_NOT_SET:}}'",
    "placeholder_code": "a = {{'$DATA_ONLY_CODE:0'}}",
    "placeholder_in_f_string": "a = f'{{$HOME:x}}'",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_data_is_refused(name: str, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ONLY_CODE", f"open({str(canary)!r}, 'w')")
    write(tmp_path, "x = 1\n", "base.py")
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path, ATTACKS[name].replace("CANARY", repr(str(canary))))
    with pytest.raises((ConfigRefusedError, FileNotFoundError)) as caught:
        read_config(path)
    assert "config.py" in str(caught.value) and not canary.exists()


def test_an_environment_variable_stays_text(tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine pastes it into the program: a quote in it would end the text and begin code."""
    value = f"' + str(open({str(canary)!r}, 'w')) + '"
    monkeypatch.setenv("DATA_ONLY_QUOTE", value)
    path = write(tmp_path, "a = '{{$DATA_ONLY_QUOTE:x}}/y'\n")
    assert read_config(path).a == value + "/y"


@pytest.mark.parametrize("dotted", ["os.system", "mmengine.rmtree", "mmdet.os.system"])
def test_the_registries_import_nothing(dotted: str, canary: Path) -> None:
    """Also a type that comes later, from the command line."""
    from mmengine.registry import MODELS

    with data_only(), pytest.raises(Exception, match="os.system|rmtree"):
        MODELS.build(dict(type=dotted, command=f"touch '{canary}'"))


def test_command_line_values_are_literals(canary: Path) -> None:
    from mst_transfer.configs.config_check import parse_cfg_options

    texts = [f"__import__('os').system('touch{canary}')", "os.system", "1e3", "(1,[a,b])"]
    values = list(parse_cfg_options(f"k{i}={text}" for i, text in enumerate(texts)).values())
    assert values == [texts[0].rstrip("'"), "os.system", 1000.0, (1, ["a", "b"])]
    for text in ("(1,2", "a(1,2)", "f(g(1,2))"):
        with pytest.raises(ValueError, match="--cfg-options .*brackets"):
            parse_cfg_options([f"key={text}"])


BOMBS = {
    "power": "a = 10 ** 10 ** 10",
    "powers": "a = 2 ** 4000\nb = a * a * a",
    "repeat": "a = [0] * 10 ** 10",
    "text": "a = 'x' * 10 ** 10",
    "doubling": "a = [0]\n" + "a = [*a, *a]\n" * 40,
    "sharing": "a = [0]\n" + "a = [a, a]\n" * 60,
    "range": "a = list(range(10 ** 12))",
    "loops": "a = [i for i in range(10 ** 5) for j in range(10 ** 5)]",
    "comparison": "a = b = [0]\n" + "a = [a, a]\nb = [b, b]\n" * 40 + "c = a == b",
    "text_of_list": "a = [0]\n" + "a = [a, a]\n" * 60 + "c = str(a)",
    "wide_format": "a = f'{1:999999999999d}'",
    "sum": "a = sum(range(10 ** 12))",
    "parentheses": "a = " + "(" * 10_000 + ")" * 10_000,
    "brackets": "a = " + "[" * 150 + "]" * 150,
    "signs": "a = " + "-" * 100_000 + "1",
    "digits": "a = " + "9" * 1_000_000,
    "large": "a = 1\n" * 2_000_000,
    "json_depth": "[" * 200_000 + "]" * 200_000,
    "json_digits": '{"a": ' + "9" * 1_000_000 + "}",
    "json_twice": '{"a": 1, "a": 2}',
    "json_nan": '{"a": NaN}',
    "json_infinity": '{"a": -Infinity}',
    "json_list": "[1]",
    "yaml_laughs": "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    ),
    "yaml_merge": "a: &a {x: 1}\nb: {<<: *a}\n",
    "yaml_depth": "[" * 20_000 + "]" * 20_000,
    "yaml_twice": "a: 1\na: 2\n",
    "yaml_object": "a: !!python/object/apply:os.system ['true']\n",
    "yaml_key": "? [1, 2]\n: 3\n",
}  # fmt: skip
RUN_BOMB = """
import resource, sys, time
import mmengine.config
from mst_transfer.compat.config_data_only import read_config
from mst_transfer.compat.config_budget import ConfigRefusedError
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for path in sys.argv[1:]:
    started = time.process_time()
    try:
        read_config(path)
        print(path, 'was read')
    except ConfigRefusedError as error:
        assert len(str(error)) < 1000, len(str(error))
    if time.process_time() - started > 10:
        print(path, 'took', time.process_time() - started)
"""


def test_bombs_are_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    """One GiB for all of them, ten seconds of the processor for each."""
    paths = [
        str(write(tmp_path, text, f"{name}.{name.split('_')[0] if name.startswith(('json_', 'yaml_')) else 'py'}"))
        for name, text in BOMBS.items()
    ]
    done = subprocess.run([sys.executable, "-c", RUN_BOMB, *paths], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr[-2000:]


def test_json_and_yaml_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ONLY_ROOT", "/d")
    write(tmp_path, '{"model": {"type": "A", "depth": 2}, "root": "{{$DATA_ONLY_ROOT:x}}/y"}', "base.json")
    path = write(tmp_path, "_base_: ./base.json\nmodel:\n  depth: 3\n", "leaf.yaml")
    assert read_config(path).to_dict() == {"model": {"type": "A", "depth": 3}, "root": "/d/y"}
    assert read_config(path).to_dict() == Config.fromfile(path).to_dict()


def test_the_commands_obey(
    tiny_seg_config: Path, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    assert main(["check", str(tiny_seg_config)]) == 0
    evil = write(tmp_path, f"_base_ = './tiny_seg.py'\nopen({str(canary)!r}, 'w')\n", "evil.py")
    for words in (["check", str(evil)], ["train", str(evil), "--check-only"], ["params", str(evil)]):
        assert main(words) == 1
        assert "evil.py:2: " in capsys.readouterr().err
    from pretrain.run.train import main as pretrain

    assert pretrain([str(evil)]) == 1 and "evil.py:2: " in capsys.readouterr().err
