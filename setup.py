"""Packaging of mst-transfer: what it needs, which files it ships, its console commands.

Environment variables, read when the package is built or installed:

``MST_TRANSFER_MMCV``: the distribution that provides the module ``mmcv``. ``mmcv-lite`` (default) is pure Python and
needs no compiler, its operators are then taken from torchvision; ``mmcv`` is the compiled one. The two install the same
files: never install both.

``MST_TRANSFER_MM``: the line of mmengine, mmdet and mmsegmentation, ``openmmlab`` (default) or ``onedl``, the
maintained fork (``mst_transfer/compat/mm_lines.py``). For the fork ``mmcv-lite`` is left out, because it requires
OpenMMLab's mmengine: ``pip install --no-deps mmcv-lite`` adds it. ``tools/install.sh --onedl`` does both.
"""

import os
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CONFIG_FOLDERS = ("det_configs", "seg_configs", "pretrain/configs")
MMCV_CHOICES = ("mmcv-lite", "mmcv")
MM_LINES = runpy.run_path(str(ROOT / "mst_transfer" / "compat" / "mm_lines.py"))["MM_LINES"]
EXPORT = ["onnx>=1.16", "onnxscript>=0.3", "onnxruntime>=1.19"]  # mst convert --to onnx
PEERS = ["mlflow-skinny>=2.10", "wandb>=0.19", "webdataset>=1"]  # what the tests of trackers and shards look into
TESTS = ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "wheel", *PEERS]
HUB = ["huggingface_hub>=0.34"]  # hf://ORG/REPO, mst push
TRACKERS = ["mlflow>=2.10", "wandb>=0.19"]  # --track
HUGGING_FACE = ["transformers>=4.53"]  # mst convert --to hf checks its result with it


def mmcv_requirement() -> str:
    name = os.environ.get("MST_TRANSFER_MMCV", "mmcv-lite")
    if name not in MMCV_CHOICES:
        raise ValueError(f"MST_TRANSFER_MMCV={name!r}: it must be one of {MMCV_CHOICES}")
    return f"{name}>=2.0.0rc4,<2.2"


def mm_requirements() -> list[str]:
    line = os.environ.get("MST_TRANSFER_MM", "openmmlab")
    if line not in MM_LINES:
        raise ValueError(f"MST_TRANSFER_MM={line!r}: it must be one of {tuple(MM_LINES)}")
    packages = [name + versions for name, versions in MM_LINES[line].items()]
    return packages if line == "onedl" else [*packages, mmcv_requirement()]


class BuildWithConfigs(build_py):
    """Copies the config folders into the wheel, where ``mst_transfer::det_configs/x.py`` finds them.

    An editable install reads them from the checkout itself.
    """

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):
            return
        shutil.rmtree(self._shipped(), ignore_errors=True)  # of an earlier build: it may hold configs that are gone
        for source, target in self._config_files().items():
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def _shipped(self) -> Path:
        return Path(self.build_lib) / "mst_transfer" / ".mim" / "configs"

    def _config_files(self) -> dict[str, str]:
        return {
            str(path): str(self._shipped() / path.relative_to(ROOT))
            for folder in CONFIG_FOLDERS
            for path in sorted((ROOT / folder).rglob("*.py"))
        }

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs if getattr(self, "editable_mode", False) else outputs + list(self._config_files().values())


def version() -> str:
    for line in (ROOT / "mst_transfer" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("mst_transfer/__init__.py has no line __version__ = ...")


readme = ROOT / "README.md"

setup(
    name="mst-transfer",
    version=version(),
    description="Masked Self-supervised Transformer (MST) pre-training, for detection and segmentation",
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10,<3.14",  # mmengine 0.10 uses pkgutil.find_loader, which Python 3.14 removed
    packages=find_packages(include=["mst_transfer", "mst_transfer.*", "pretrain", "pretrain.*"]),
    package_data={
        "mst_transfer": ["py.typed", "card/page.html", "card/page.md", "card/model_card.md", "zoo/*"],
        "pretrain": ["py.typed"],
    },
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=[
        "torch>=2.6",  # weights_only loading by default
        "torchvision>=0.21",
        "timm>=1.0.16,<2",
        *mm_requirements(),
        "ftfy",  # imported by mmsegmentation, not declared by it
        "regex",  # imported by mmsegmentation, not declared by it
        "pycocotools>=2.0.7",
        "hotcoco>=1.3,<2",  # COCO's figures, some 50 times quicker
        "numpy>=1.24",
        "opencv-python>=4.8",
        "scipy>=1.10",  # Student's t
        "scikit-image>=0.22",
        "matplotlib>=3.7",
        "jinja2>=3.1",
        "safetensors>=0.4",
        "filelock>=3.32.7,<5",  # earlier ones leave the lock with processes forked from the one that has it
        "tensorboard>=2.14",
    ],
    extras_require={
        "dev": [*TESTS, "ruff>=0.8", "mypy>=1.11", *EXPORT, *HUB, *HUGGING_FACE],
        "export": EXPORT,
        "hf": HUGGING_FACE,
        "hub": HUB,
        "track": TRACKERS,
        "s3": ["fsspec", "s3fs"],  # mst pretrain s3://…
        "docs": ["zensical>=0.0.73", "mkdocstrings-python>=2", "jupytext>=1.16"],  # tools/docs.sh
    },
    entry_points={
        "console_scripts": [
            "mst = mst_transfer.cli.main:main",
            "mst-pretrain = pretrain.run.train:main",
        ]
    },
)
