"""What importing a part of the package brings in, and where its types are found; each in a fresh process."""

import os
import subprocess
import sys


def run_python(code, root, folder):
    """Runs code in another folder with the package importable; fails with its output."""
    environment = dict(os.environ, PYTHONPATH=str(root))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_contract_needs_no_mm_library(root, tmp_path):
    code = (
        "import sys, mst_transfer.checkpoint\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'mmengine', 'mmcv', 'mmdet', 'mmseg'}))"
    )
    assert run_python(code, root, tmp_path).strip() == "[]"


def test_the_package_itself_is_light(root, tmp_path):
    heavy = {"torch", "torchvision", "timm", "mmengine", "mmcv", "mmdet", "mmseg"}
    code = f"import sys, mst_transfer; print(sorted({heavy} & set(sys.modules)))"
    assert run_python(code, root, tmp_path).strip() == "[]"


def test_scoped_types_need_no_custom_imports(root, tmp_path):
    """From another project's folder, through the registries of mmengine, mmdet and mmseg."""
    code = """
import mst_transfer
import mmengine.registry, mmdet.registry, mmseg.registry
for library in (mmengine, mmdet, mmseg):
    backbone = dict(type="mst_transfer.TimmViTPyramid", arch="vit_tiny_patch16_224", img_size=32, depth=4)
    print(library.__name__, type(library.registry.MODELS.build(backbone)).__name__)
    constructor = "mst_transfer.LayerDecayOptimWrapperConstructor"
    assert library.registry.OPTIM_WRAPPER_CONSTRUCTORS.get(constructor).__name__ in constructor
"""
    lines = run_python(code, root, tmp_path).splitlines()
    assert lines == [f"{library} TimmViTPyramid" for library in ("mmengine", "mmdet", "mmseg")]
