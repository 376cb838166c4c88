"""Finds the backbone inside a file of another project, by its content.

A file may nest its tensors (``{"teacher": {"module.backbone.cls_token": …}}``), wrap their names in prefixes
(``module.``, ``encoder.``), or hold a student and a teacher. None of these layouts is listed here: every naming scheme
has one tensor that can be nothing else (an *anchor*, see ``mst_transfer.checkpoint.sources``), and whatever stands
before it is the prefix.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mst_transfer.checkpoint.errors import BackboneNotCoveredError, BackboneRefusedError, list_names
from mst_transfer.checkpoint.metadata import BackboneMetadata
from mst_transfer.checkpoint.pos_embed import MARK
from mst_transfer.checkpoint.sources import SOURCES
from mst_transfer.checkpoint.sources.timm_like import MOCO_V3, is_moco_v3

_ROLE_PARTS = {
    "teacher": ("teacher", "model_ema", "state_dict_ema", "ema", "momentum_encoder", "encoder_k"),
    "student": ("student", "base_encoder"),
}
_HEAD_PARTS = (
    *("head", "head_dist", "fc_norm", "fc", "classifier", "projector", "predictor", "prototypes", "pooler", "lm_head"),
    *("attn_pool", "pre_logits", "mask_token", "mask_embed", "masked_embed", "local_cls_norm", "cls_pt_layers"),
    *("decoder", "decoder_embed", "decoder_pos_embed", "decoder_blocks", "decoder_norm", "decoder_pred"),
)
_DERIVED = ("relative_position_index", "rope.periods")  # follow from the architecture


@dataclass(frozen=True)
class BackboneFile:
    """A backbone found in a file.

    Attributes:
        source: the file's name, for messages.
        tensors: under timm's names; heads of foreign files included, under their names in the file.
        metadata: None for a file that is not ours.
        scheme: whose names it bears: ``MST`` for ours, else the ``name`` of one of
            ``mst_transfer.checkpoint.sources.SOURCES``.
        role: ``teacher`` or ``student``, None where the file does not say.
        interpolation: how ``pos_embed`` is to be resampled; for foreign files, as far as the content shows.
        num_heads: numbers of attention heads by width, as far as the scheme fixes them.
    """

    source: str
    tensors: dict[str, Tensor]
    metadata: BackboneMetadata | None
    scheme: str
    role: str | None
    interpolation: str
    num_heads: Mapping[int, int] = field(default_factory=dict)


def is_head_tensor(name: str) -> bool:
    """Whether a tensor (backbone prefix removed) belongs to a head, a decoder or a mask token."""
    return name.split(".", 1)[0] in _HEAD_PARTS


def is_derived_tensor(name: str) -> bool:
    """Whether a tensor holds what the architecture implies: indices of relative positions, periods of rotations."""
    return name.endswith(_DERIVED)


def recognise(tensors: Mapping[str, Tensor], role: str | None, source: str) -> BackboneFile:
    """Finds the backbone among all tensors of a file and gives it timm's names; ``role`` as of ``read_backbone``.

    Raises:
        ValueError: if there is no backbone, or none of that role.
        BackboneNotCoveredError: if a part of a tensor is missing that timm keeps in one piece.
    """
    for scheme in SOURCES:
        prefixes = [
            name.removesuffix(scheme.anchor)
            for name in tensors
            if name == scheme.anchor or name.endswith("." + scheme.anchor)
        ]
        if not prefixes:
            continue
        prefix, found_role = _choose_prefix(prefixes, role, source)
        inside = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
        if not scheme.matches(inside):
            continue
        outer = prefix[: prefix[:-1].rfind(".") + 1]
        beside = {name: tensors[outer + name] for name in scheme.beside if prefix and outer + name in tensors}
        interpolation = "dino" if _resampled_as_dino(tensors) else scheme.interpolation(inside)
        try:
            renamed = scheme.rename(beside | inside)
            heads = MOCO_V3.num_heads if is_moco_v3(renamed) else scheme.num_heads  # under any project's names
            return BackboneFile(source, renamed, None, scheme.name, found_role, interpolation, heads)
        except (BackboneNotCoveredError, BackboneRefusedError) as error:
            raise type(error)(f"{source} ({scheme.name}): {error}") from error
        except (LookupError, RuntimeError, TypeError) as error:
            raise BackboneRefusedError(
                f"{source} ({scheme.name}): its tensors do not have the shapes of a backbone ({str(error)[:200]})"
            ) from error
    anchors = ", ".join(repr(anchor) for anchor in dict.fromkeys(scheme.anchor for scheme in SOURCES))
    raise ValueError(
        f"{source} holds no ViT or Swin backbone: none of its {len(tensors)} tensors is named {anchors} "
        f"(first names: {list_names(tuple(tensors)) or 'none'}). Is it the right file?"
    )


def _resampled_as_dino(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file holds the centre of DINO's or iBOT's loss, or the mark of our whole models that resample so."""
    marked = any(name.split(".")[-1] == MARK for name in tensors)
    return marked or not tensors.keys().isdisjoint(("dino_loss.center", "ibot_loss.center"))


def _choose_prefix(prefixes: list[str], role: str | None, source: str) -> tuple[str, str | None]:
    """The one prefix whose parts fit the role, and its role; a single network without a role fits any."""
    roles = {prefix: _role_of(prefix, prefixes) for prefix in prefixes}
    if role is None:
        named = set(roles.values()) - {None}
        role = named.pop() if len(named) == 1 else "teacher"
    fitting = [prefix for prefix in prefixes if roles[prefix] == role]
    if not fitting:
        fitting = [prefix for prefix in prefixes if roles[prefix] is None]
    if len(fitting) == 1:
        return fitting[0], roles[fitting[0]]
    found = ", ".join(repr(prefix.rstrip(".")) for prefix in prefixes)
    if not fitting:
        other = ", ".join(sorted({str(value) for value in roles.values()}))
        raise ValueError(f"{source} holds no {role}, only {other} (under {found}); pass role={other!r}")
    raise ValueError(
        f"{source} holds several backbones (under {found}) and role={role!r} does not choose one of them; "
        "save the one you want to a file of its own"
    )


def _role_of(prefix: str, prefixes: list[str]) -> str | None:
    """The role that the parts of a prefix name, None if they name none.

    mmengine's ``EMAHook`` swaps the two networks when it saves: ``state_dict`` is the moving average then, and
    ``ema_state_dict`` the network that is trained.
    """
    parts = prefix.split(".")
    if "encoder" in parts and any("encoder_k" in other.split(".") for other in prefixes):
        return "student"  # MoBY's, beside its momentum encoder
    if any(other.startswith("ema_state_dict.") for other in prefixes):
        return {"state_dict": "teacher", "ema_state_dict": "student"}.get(parts[0])
    return next((role for role, names in _ROLE_PARTS.items() if any(name in parts for name in names)), None)
