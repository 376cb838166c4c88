"""The two lines of the mm packages: OpenMMLab's and its maintained fork. Both install mmengine/, mmdet/ and mmseg/.

``setup.py`` runs this file by its path, before anything is installed: nothing may be imported here.
"""

# MST_TRANSFER_MM → distributions of mmengine, mmdet and mmseg → versions. Those that were tested: constraints.txt
MM_LINES = {
    "openmmlab": {"mmengine": ">=0.10.7,<0.11", "mmdet": ">=3.3.0,<3.4", "mmsegmentation": ">=1.2.2,<1.3"},
    "onedl": {
        "onedl-mmengine": ">=0.10.12,<0.11",
        "onedl-mmdetection": ">=3.5.1,<3.6",
        "onedl-mmsegmentation": ">=1.4.2,<1.5",
    },
}
MM_NAMES = tuple(name for line in MM_LINES.values() for name in line)
