"""Transfer of MST backbones to detection and segmentation with the MM libraries.

Importing this package installs ``mst_transfer.compat`` (see there) and nothing else: no model library is
imported.
"""

from mst_transfer import compat

__version__ = "0.1.0"

compat.install()
