"""Loading is never executing: files that would run code are refused at every door that reads a file.

Each harmful file would write a canary; that it can is shown first, by reading it the careless way.
"""

from __future__ import annotations

import ast
import contextlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import malicious_files
import mmengine
import numpy as np
import pytest
import torch
from malicious_files import FORMATS, as_mmengine
from mmengine.model import initialize
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from safetensors import SafetensorError
from safetensors.torch import save_file
from small_vit import make_vit

from mst_transfer.checkpoint import load_backbone, read_backbone
from mst_transfer.checkpoint.files import read_pickle
from mst_transfer.cli.main import main
from mst_transfer.compat.untrusted_files import RefusedFileError

REFUSALS = (ValueError, RuntimeError, SafetensorError)  # RefusedFileError and BackboneRefusedError are ValueErrors


@pytest.fixture(params=["torch decides", "torch is told to run everything"])
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a variable of the environment turns torch's own protection off."""
    if request.param != "torch decides":
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


def doors() -> dict[str, Callable[[Path], Any]]:
    """Every function that reads weights from a path."""
    from mmengine.runner.checkpoint import _load_checkpoint

    from mst_transfer.probes.backbones import load_frozen
    from mst_transfer.runs.checkpoints import existing_checkpoint
    from pretrain.run.warm_start import load_head

    def pretrained(path: Path) -> None:
        from mmengine.model import BaseModule

        class Net(BaseModule):
            def __init__(self, init_cfg: dict) -> None:
                super().__init__(init_cfg)
                self.layer = torch.nn.Linear(1, 1)

        Net(dict(type="Pretrained", checkpoint=str(path))).init_weights()

    return {
        "read_backbone": read_backbone,
        "load_backbone": lambda path: load_backbone(make_vit(), path),
        "read_pickle": read_pickle,
        "evaluation": lambda path: load_frozen(path, device="cpu"),
        "warm start of a head": lambda path: load_head(torch.nn.Linear(1, 1), torch.zeros(1), str(path)),
        "mmengine's load_checkpoint": lambda path: load_checkpoint(torch.nn.Linear(1, 1), str(path)),
        "mmengine's _load_checkpoint": lambda path: _load_checkpoint(existing_checkpoint(str(path))),
        "mmengine's CheckpointLoader": lambda path: CheckpointLoader.load_checkpoint(str(path), map_location="cpu"),
        "init_cfg Pretrained": pretrained,
        "mmengine's initialize": lambda path: initialize(
            torch.nn.Linear(1, 1), dict(type="Pretrained", checkpoint=str(path))
        ),
    }


def test_the_files_are_harmful(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, harm in malicious_files.harms(canary).items():
        canary.unlink(missing_ok=True)
        content = pickle.dumps(harm)
        with contextlib.suppress(RuntimeError):  # the hub's repository has no such model; it has run by then
            pickle.loads(content)
        assert canary.exists(), name


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.usefixtures("environment")
def test_harmful_pickles_are_refused_at_every_door(format_name: str, canary: Path) -> None:
    """Every door; every way to do harm for one of them."""
    reads = doors()
    for harm_name, harm in malicious_files.harms(canary).items():
        canary.unlink(missing_ok=True)
        for number, content in enumerate((harm, {"model": harm}, as_mmengine(harm))):
            path = canary.parent / ("harm.safetensors" if number == 1 and harm_name == "open" else "harm.pth")
            FORMATS[format_name](content, path)
            for door, read in reads.items() if harm_name == "eval" else list(reads.items())[2:7:4]:
                with pytest.raises(REFUSALS):
                    read(path)
                assert not canary.exists(), f"{harm_name} as {format_name} ran in {door}"


def test_other_harmful_files_are_refused_at_every_door(canary: Path) -> None:
    """A pickle called .safetensors is none; safetensors called .pth are no pickle; TorchScript, arrays of objects."""
    harm = malicious_files.harms(canary)["eval"]
    torch.save(harm, canary.parent / "a.safetensors")
    save_file({"cls_token": torch.zeros(1, 1, 24)}, canary.parent / "b.pth")
    malicious_files.write_torchscript(canary.parent / "script.pth")
    torch.save({"model": np.array([harm], dtype=object)}, canary.parent / "arrays.pth")
    for read in doors().values():
        for name in ("a.safetensors", "b.pth", "script.pth", "arrays.pth"):
            with pytest.raises(REFUSALS):
                read(canary.parent / name)


def test_the_commands_refuse_in_one_message(
    canary: Path, tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "harm.pth"
    torch.save(as_mmengine(malicious_files.harms(canary)["eval"]), path)
    work_dir = ["--work-dir", str(tmp_path / "w")]
    for words in (
        ["inspect", str(path)],
        ["convert", str(path), "--to", "mst", "-o", str(tmp_path / "out.safetensors")],
        ["test", str(tiny_seg_config), str(path), *work_dir],
        ["train", str(tiny_seg_config), "--resume", str(path), *work_dir],
        ["train", str(tiny_seg_config), "--cfg-options", f"load_from={path}", *work_dir],
    ):
        assert main(words) == 1, words
        said = capsys.readouterr().err
        assert f"mst {words[0]}: " in said and str(path) in said and "refused" in said, said
        assert "Traceback" not in said and not canary.exists()


def test_pretraining_refuses(canary: Path, capsys: pytest.CaptureFixture) -> None:
    from pretrain.pictures.__main__ import main as pictures

    path = canary.parent / "epoch_1.pth"
    torch.save(as_mmengine(malicious_files.harms(canary)["eval"]), path)
    (canary.parent / "config.py").write_text(f"open({str(canary)!r}, 'w')\n")
    assert pictures([str(canary.parent), "--images", str(canary.parent), "--out", str(canary.parent / "o")]) == 1
    assert "--trust-config" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["pkl", "pickle", "yaml", "yml"])
def test_annotations_that_would_run_are_refused(ending: str, canary: Path) -> None:
    """mmengine reads any dataset's annotation and proposal files, and class weights, by their endings."""
    from mmdet.datasets import BaseDetDataset, CocoDataset
    from mmseg.models.losses.utils import get_class_weight

    path = canary.parent / f"annotations.{ending}"
    if ending.startswith("p"):
        path.write_bytes(pickle.dumps(malicious_files.harms(canary)["eval"]))
    else:
        path.write_text(f'!!python/object/apply:os.system ["touch {canary}"]\n')
    good = canary.parent / "good.json"
    good.write_text('{"metainfo": {"classes": ["a"]}, "data_list": [{"img_path": "a.jpg", "instances": []}]}')
    proposals = dict(ann_file=str(good), proposal_file=str(path), pipeline=[])
    for read in (
        lambda: mmengine.load(str(path)),
        lambda: mmengine.load(str(path), file_format=ending),
        lambda: BaseDetDataset(ann_file=str(path), pipeline=[]),
        lambda: BaseDetDataset(**proposals),
        lambda: CocoDataset(ann_file=str(path), pipeline=[]),
        lambda: get_class_weight(str(path)),
    ):
        with pytest.raises(ValueError):
            read()
        assert not canary.exists()


def test_the_libraries_other_pickles_are_refused(canary: Path) -> None:
    from mmdet.datasets.openimages import OpenImagesChallengeDataset
    from mmseg.datasets.transforms import LoadBiomedicalData

    harm = malicious_files.harms(canary)["eval"]
    path = canary.parent / "image.pkl"
    path.write_bytes(pickle.dumps(harm))
    with pytest.raises(RefusedFileError, match="decode_backend='pickle'"):
        LoadBiomedicalData(decode_backend="pickle")(dict(img_path=str(path)))
    dataset = OpenImagesChallengeDataset.__new__(OpenImagesChallengeDataset)
    dataset.backend_args = None
    with pytest.raises(ValueError, match="allow_pickle"):
        dataset._get_relation_matrix(str(malicious_files.object_array(canary)))
    plain = canary.parent / "plain.npy"
    np.save(plain, np.eye(3))
    assert dataset._get_relation_matrix(str(plain)).shape == (2, 2)


def test_plain_yaml_and_written_pickles_still_work(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1, 2.5, true, text]\n")
    assert mmengine.load(str(tmp_path / "a.yaml")) == {"a": [1, 2.5, True, "text"]}
    mmengine.dump([1], str(tmp_path / "a.pkl"))
    assert pickle.loads((tmp_path / "a.pkl").read_bytes()) == [1]
    with pytest.raises(RefusedFileError, match=r"a\.pkl was refused.*JSON"):
        mmengine.load(str(tmp_path / "a.pkl"))


def test_the_libraries_load_weights_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real libraries, with a recorder in the place of torch.load: whatever they say themselves is said right."""
    from timm.models import load_checkpoint as load_timm_checkpoint

    transformers = pytest.importorskip("transformers", reason="its loader is one of those that are looked at")
    calls: list[tuple[str, Any]] = []
    original = torch.load

    def recorded(*args: Any, **kwargs: Any) -> Any:
        calls.append((str(args[0]), kwargs.get("weights_only")))
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, "load", recorded)
    model = make_vit()
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    load_timm_checkpoint(make_vit(), str(tmp_path / "timm.pth"))
    line = torch.nn.Linear(1, 1)
    torch.save(line.state_dict(), tmp_path / "mmengine.pth")
    load_checkpoint(line, str(tmp_path / "mmengine.pth"))
    initialize(line, dict(type="Pretrained", checkpoint=str(tmp_path / "mmengine.pth")))
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    hf = transformers.ViTModel(config)
    hf.config.save_pretrained(tmp_path)
    torch.save(hf.state_dict(), tmp_path / "pytorch_model.bin")
    transformers.ViTModel.from_pretrained(tmp_path)
    assert {Path(path).suffix for path, _ in calls} == {".pth", ".bin"} and len(calls) >= 4
    assert all(weights_only is True for _, weights_only in calls), calls


FORBIDDEN_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "compile", "os.system", "os.popen",
    "marshal.loads", "torch.hub.load", "torch.jit.load", "joblib.load", "shelve.open", "yaml.unsafe_load",
    "yaml.full_load", "__import__",
}  # fmt: skip
# What a reader must say with each call.
REQUIRED_KEYWORDS = {"torch.load": "weights_only", "torch.hub.load_state_dict_from_url": "weights_only"}


def unsafe_calls(tree: ast.AST) -> Iterator[str]:
    """Calls by which a file, or a text of the user, could be executed."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        said = {key: value.value for key, value in keywords.items() if key and isinstance(value, ast.Constant)}
        if name in FORBIDDEN_CALLS or said.get("shell") is True or said.get("allow_pickle") is True:
            yield f"{node.lineno}: {name}"
        elif name in REQUIRED_KEYWORDS and said.get(REQUIRED_KEYWORDS[name]) is not True:
            merged = any(isinstance(one, ast.Dict) and "weights_only" in ast.unparse(one) for one in ast.walk(node))
            if not merged:
                yield f"{node.lineno}: {name} without {REQUIRED_KEYWORDS[name]}=True"
        elif said.get("weights_only") is False:
            yield f"{node.lineno}: {name} with weights_only=False"
        elif name == "yaml.load" and not ast.unparse(keywords.get("Loader", node)).endswith("SafeLoader"):
            yield f"{node.lineno}: {name} without a safe loader"


IN_TESTS = {"eval", "exec", "compile", "__import__", "pickle.loads", "np.save"}  # of what a test itself has written


@pytest.mark.parametrize(
    "folder", ["mst_transfer", "pretrain", "tools", "benchmarks", "det_configs", "seg_configs", "tests"]
)
def test_no_module_can_execute_what_it_reads(folder: str, root: Path) -> None:
    found = {
        f"{path.relative_to(root)}:{call}"
        for path in sorted((root / folder).rglob("*.py"))
        for call in unsafe_calls(ast.parse(path.read_text(encoding="utf-8")))
        if not (folder == "tests" and call.split(": ")[1] in IN_TESTS)
    }
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(f)", "eval(x)", "exec(x)", "torch.load(p)", "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)", "yaml.load(f)", "yaml.load(f, Loader=yaml.Loader)", "run(x, shell=True)",
        "load(p, weights_only=False)", "os.system(x)",
    ],
)  # fmt: skip
def test_the_walk_sees(line: str) -> None:
    assert list(unsafe_calls(ast.parse(line)))
