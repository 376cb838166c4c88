"""Types of this package are found from another project's folder, without ``custom_imports``."""

import os
import subprocess
import sys

CODE = """
import mst_transfer
import mmengine.registry, mmdet.registry, mmseg.registry
for library in (mmengine, mmdet, mmseg):
    backbone = dict(type="mst_transfer.TimmViTPyramid", arch="vit_tiny_patch16_224", img_size=32, depth=4)
    print(library.__name__, type(library.registry.MODELS.build(backbone)).__name__)
    constructor = "mst_transfer.LayerDecayOptimWrapperConstructor"
    assert library.registry.OPTIM_WRAPPER_CONSTRUCTORS.get(constructor).__name__ in constructor
"""


def test_scoped_types_need_no_custom_imports(root, tmp_path):
    """Through the registries of mmengine, mmdet and mmseg, in a fresh process."""
    environment = dict(os.environ, PYTHONPATH=str(root))
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [
        line for line in done.stdout.splitlines() if "OneDL" not in line
    ]  # of which the fork prints that it is not there
    assert lines == [f"{library} TimmViTPyramid" for library in ("mmengine", "mmdet", "mmseg")]
