"""The MST pre-trainer: DINO's student and teacher, attention-guided masking, global image restoration.

Method: Li et al., "MST: Masked Self-Supervised Transformer for Visual Representation", NeurIPS 2021,
arXiv 2106.05656, on the recipe of Caron et al., "Emerging Properties in Self-Supervised Vision Transformers"
(DINO), ICCV 2021, arXiv 2104.14294.
"""

import mst_transfer  # noqa: F401  (installs mst_transfer.compat before mmengine is used)
