"""The contract between pre-training and transfer: what a backbone checkpoint is; writing, reading, loading.

A backbone checkpoint is one safetensors file. Its tensors carry timm's names (``cls_token``, ``pos_embed``,
``patch_embed.proj.weight``, ``blocks.0.…``, ``norm.weight``), without head and without mask token; its metadata
(``BackboneMetadata``) say which architecture they belong to. Files of other
projects are read too, whatever they call their tensors: see ``mst_transfer.checkpoint.sources``; and weights that
timm publishes, by name: ``timm://vit_small_patch16_224.dino``. The architecture of a file that does not name it is told
from its tensors (``mst_transfer.checkpoint.architecture``).

Loading never half-succeeds: everything is checked before the first tensor is copied, and a model whose
backbone is not covered raises ``BackboneNotCoveredError``.

Shapes: D embedding width, N tokens (prefix + patches), p patch side in pixels.
"""

from mst_transfer.checkpoint.architecture import architecture_of, infer_architecture
from mst_transfer.checkpoint.errors import BackboneNotCoveredError, BackboneRefusedError
from mst_transfer.checkpoint.load import LoadReport, load_backbone
from mst_transfer.checkpoint.metadata import FORMAT, FORMAT_VERSION, ROLES, BackboneMetadata
from mst_transfer.checkpoint.read import find_backbone, read_backbone
from mst_transfer.checkpoint.recognise import BackboneFile
from mst_transfer.checkpoint.write import save_backbone

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "ROLES",
    "BackboneFile",
    "BackboneMetadata",
    "BackboneNotCoveredError",
    "BackboneRefusedError",
    "LoadReport",
    "architecture_of",
    "find_backbone",
    "infer_architecture",
    "load_backbone",
    "read_backbone",
    "save_backbone",
]
