"""The command ``mst``: usage, speed of its help, the doctor's findings."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import mst_transfer
from mst_transfer.cli import doctor
from mst_transfer.cli.main import VERBS, main

DETECTOR, SAMPLE = "det_configs/mst_maskrcnn_coco.py", "pretrain/configs/mst_vit_sample.py"
MISSPELT = ["--cfg-options", "optm_wrapper.x=1"]
NO_DATA = ["--check-only", "--cfg-options", "train_dataloader.dataset.data_root=no"]
HELP = [[["--help"]], *([[verb, "--help"]] for verb in VERBS if verb != "sample-data")]


def test_help_names_every_verb(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"mst-transfer {mst_transfer.__version__}"


@pytest.mark.parametrize("words", [[], ["trian"]])
def test_wrong_verbs_get_usage(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "usage: mst VERB" in error and all(repr(word) in error for word in words)


@pytest.mark.parametrize(
    ("module", "calls", "status"),
    [
        ("mst_transfer.cli.main", HELP, 0),
        ("pretrain.run.train", [[["--help"]]], 0),
        ("pretrain.pictures.__main__", [[["--help"]]], 0),
        ("mst_transfer.probes.main", [["eval_knn", ["--help"]]], 0),
        ("mst_transfer.cli.main", [[["train", "nothing.py"]], [["train", DETECTOR, *MISSPELT]]], 1),
        ("pretrain.run.train", [[[SAMPLE, *MISSPELT]], [[SAMPLE, *NO_DATA]]], 1),
    ],
)
def test_help_and_config_errors_do_not_wait_for_torch(module: str, calls: list, status: int, root: Path) -> None:
    heavy = ["torch", "timm", "mmcv", "cv2", "matplotlib", *["mmengine", "numpy"] * (calls is HELP)]
    code = (
        f"import sys, {module} as m\n"
        f"for words in {calls!r}:\n"
        "    try: status = m.main(*words)\n"
        "    except SystemExit as stop: status = stop.code\n"
        f"    assert status == {status}\n"
        f"assert not set({heavy!r}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)


def test_the_doctor_finds_a_sound_installation(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MST_DATA_ROOT", raising=False)
    status = doctor.main([])
    out = capsys.readouterr().out
    assert status == 0, out
    assert "no faults found" in out and "operators: " in out and "data root data" in out


def test_both_kinds_of_mmcv_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", {"mmcv": "2.1.0", "mmcv-lite": "2.1.0"}.get)
    (found,) = list(doctor.check_mmcv())
    assert found.kind == "fault" and "mmcv 2.1.0 and mmcv-lite 2.1.0 are" in found.what
    assert found.fix == f"pip uninstall -y mmcv mmcv-lite onedl-mmcv && {doctor.MMCV_LITE}"
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    (found,) = list(doctor.check_mmcv())
    assert found.kind == "fault" and found.fix == "pip install --no-deps 'mmcv-lite>=2.0.0rc4,<2.2'"
    monkeypatch.setattr(doctor, "installed_version", lambda name: "2.1.0" if name == "mmcv" else None)
    assert list(doctor.check_mmcv()) == [doctor.Line("ok", "mmcv 2.1.0")]


OPENMMLAB = {"mmengine": "0.10.7", "mmdet": "3.3.0", "mmsegmentation": "1.2.2"}
FORK = {"onedl-mmengine": "0.10.12", "onedl-mmdetection": "3.5.1", "onedl-mmsegmentation": "1.4.2"}


@pytest.mark.parametrize(("line", "name"), [(OPENMMLAB, "OpenMMLab's"), (FORK, "the maintained fork (onedl)")])
def test_each_line_of_the_mm_packages_is_known(line: dict, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", line.get)
    versions = [f"{package} {version}" for package, version in line.items()]
    assert list(doctor.check_mm()) == [doctor.Line("ok", what) for what in (f"mm packages: {name}", *versions)]
    engine, detection, segmentation = line
    fix = doctor.import_fix(
        "mmdet", RuntimeError("broken")
    )  # the other line's package would overwrite this one's files
    assert fix == f"pip install --force-reinstall --no-deps -c constraints.txt {detection}"
    monkeypatch.setattr(doctor, "installed_version", {engine: "0.10.99", detection: "2.0"}.get)
    found = list(doctor.check_mm())
    assert [one.kind for one in found] == ["ok", "ok", "fault", "fault"]
    assert f"{detection} 2.0: >=3." in found[2].what and found[3].fix.startswith(f"pip install '{segmentation}>=1.")


@pytest.mark.parametrize("mixture", [{**OPENMMLAB, **FORK}, {"onedl-mmengine": "0.10.12", "mmdet": "3.3.0"}])
def test_mixed_lines_of_the_mm_packages_are_a_fault(mixture: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", mixture.get)
    (found,) = list(doctor.check_mm())
    assert found.kind == "fault" and all(f"{name} {version}" in found.what for name, version in mixture.items())
    remove, again = found.fix.split(" && ")
    assert remove.split()[3:] == [*OPENMMLAB, *FORK] and "'mmengine>=0.10.7,<0.11' 'mmdet" in again
    assert ", or for the fork 'onedl-mmengine>=0.10.12,<0.11' 'onedl-mmdetection" in again


def test_missing_and_wrong_packages_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.14.1", "timm": "0.4.12", "opencv-python-headless": "4.10"}
    needed = ["torch>=2.6", "mmdet>=3", "timm>=1", "opencv-python>=4.8", "ftfy", "ruff; extra == 'dev'"]
    monkeypatch.setattr(doctor, "requires", lambda name: needed)
    monkeypatch.setattr(doctor, "installed_version", versions.get)
    found = list(doctor.check_packages())  # but mmdet: either line will do
    assert [one.kind for one in found] == ["ok", "fault", "ok", "fault"]
    assert found[1].fix == "pip install 'timm>=1'" and found[3].fix == "pip install 'ftfy'"

    def not_installed(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", not_installed)
    (found_one,) = list(doctor.check_packages())
    assert found_one.fix == "pip install -c constraints.txt -e ."


def test_failing_imports_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        if name in ("cv2", "mmcv"):
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        if name == "mmseg":
            raise ModuleNotFoundError("No module named 'ftfy'", name="ftfy")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    found = {one.what.split()[1]: one.fix for one in list(doctor.check_imports())}
    assert found == {
        "torchvision": "pip install --force-reinstall -c constraints.txt torch torchvision",
        "cv2": "pip uninstall -y opencv-python && pip install opencv-python-headless",
        "mmseg": "pip install ftfy",
    }


def test_a_driver_without_a_visible_gpu_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    for cuda, part in ((None, "has no CUDA"), ("13.0", "sees no GPU")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        fault = list(doctor.check_devices())[0]
        assert fault.kind == "fault" and part in fault.what and fault.fix


def test_data_roots_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MST_DATA_ROOT", str(tmp_path / "missing"))
    assert list(doctor.check_data())[0].fix == f"mkdir -p {tmp_path / 'missing'}"
    (tmp_path / "coco").mkdir()
    monkeypatch.setenv("MST_DATA_ROOT", str(tmp_path))
    (found,) = list(doctor.check_data())
    assert found.kind == "ok" and found.what.endswith("found coco")


def test_fixes_name_constraints_only_where_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.constraints().strip().endswith(f"{root / 'constraints.txt'}".split()[-1])
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "lib" / "mst_transfer" / "cli" / "doctor.py"))
    assert doctor.constraints() == ""
    fault = RuntimeError("operator torchvision::nms does not exist")
    assert doctor.import_fix("torchvision", fault) == "pip install --force-reinstall torch torchvision"
