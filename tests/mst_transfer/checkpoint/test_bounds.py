"""Files of weights that claim more than they hold: refused within bounded time and memory."""

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_vit import make_metadata, make_vit

from mst_transfer.checkpoint import BackboneMetadata, read_backbone
from mst_transfer.checkpoint.architecture import infer_architecture


def nested(keys: str, depth: int) -> Any:
    content: Any = torch.zeros(1)
    for _ in range(depth):
        content = dict.fromkeys(keys, content)
    return content


def own_child(path: Path) -> None:
    content: dict = {}
    content["a"] = content
    torch.save(content, path)


def zipped_again(path: Path, change: Callable[[bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """With another pickle."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


def packed(path: Path) -> None:
    torch.save({"cls_token": torch.zeros(2**22)}, path)
    zipped_again(path, lambda data: data, zipfile.ZIP_DEFLATED)


def claimed_shape(path: Path) -> None:
    """The storage has four numbers, the tensor 10^11."""
    torch.save({"x": torch.zeros(4)}, path)

    def changed(pickled: bytes) -> bytes:
        assert b"K\x04\x85q" in pickled and b"K\x01\x85q" in pickled  # shape and stride
        return pickled.replace(b"K\x04\x85q", b"\x8a\x05\x00\xe8vH\x17\x85q", 1)

    zipped_again(path, changed)


def claimed_record(path: Path) -> None:
    """The archive's directory says that a record unpacks to 4 GB."""
    torch.save({"x": torch.zeros(4)}, path)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    while entry != -1:
        data[entry + 24 : entry + 28] = struct.pack("<I", 2**32 - 2)
        entry = data.find(b"PK\x01\x02", entry + 4)
    path.write_bytes(data)


def saving(make: Callable[[], Any]) -> Callable[[Path], None]:
    return lambda path: torch.save({"x": make()}, path)


def header(path: Path, content: bytes, claimed: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(content) if claimed is None else claimed) + content)


def tensor_of(size: int, offsets: tuple[int, int]) -> bytes:
    return json.dumps({"cls_token": {"dtype": "F32", "shape": [size], "data_offsets": offsets}}).encode()


BOMBS: dict[str, Callable[[Path], None]] = {
    "doubled_dicts.pth": saving(lambda: nested("ab", 40)),  # 2^40 names for one tensor
    "own_child.pth": own_child,
    "deep.pth": saving(lambda: nested("a", 300)),
    "deep_lists.pth": lambda path: path.write_bytes(b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b"."),
    "expanded.pth": saving(lambda: torch.zeros(1, 1, 1).expand(10**5, 10**4, 24)),
    "packed.pth": packed,
    "claimed_shape.pth": claimed_shape,
    "claimed_record.pth": claimed_record,
    "meta.pth": saving(lambda: torch.empty(10**12, device="meta")),
    "sparse.pth": saving(lambda: torch.sparse_coo_tensor(torch.zeros(2, 1).long(), [1.0], (10**6, 10**6))),
    "header_2gb.safetensors": lambda path: header(path, b"{}", 2**31),
    "header_2_63.safetensors": lambda path: header(path, b"{}", 2**63),
    "header_depth.safetensors": lambda path: header(path, b'{"__metadata__":' + b"[" * 10**6 + b"]" * 10**6 + b"}"),
    "header_digits.safetensors": lambda path: header(path, b'{"a": ' + b"9" * 10**6 + b"}"),
    "claimed_size.safetensors": lambda path: header(path, tensor_of(2**40, (0, 2**42))),
    "overlap.safetensors": lambda path: header(path, tensor_of(2, (0, 4)) + b" " * 100),
    "empty.pth": Path.touch,
    "empty.safetensors": Path.touch,
    "zeros.pth": lambda path: path.write_bytes(bytes(10**6)),
}
READ = """
import resource, sys, time
import torch
from mst_transfer.checkpoint import read_backbone
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for path in sys.argv[1:]:
    started = time.process_time()
    try:
        read_backbone(path)
        print(path, 'was read')
    except ValueError as error:
        assert path in str(error) and len(str(error)) < 1500, str(error)[:3000]
    except BaseException as error:
        print(path, type(error), str(error)[:200])
    if time.process_time() - started > 10:
        print(path, 'took', time.process_time() - started)
"""


def test_claims_are_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    """One GiB for all of them, ten seconds of the processor for each."""
    for name, write in BOMBS.items():
        write(tmp_path / name)
    paths = [str(tmp_path / name) for name in BOMBS]
    done = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("arch", "hf_hub:someone/model"), ("arch", "local-dir:/tmp"), ("arch", ""),
        ("arch_kwargs", '{"pretrained": true}'), ("arch_kwargs", '{"checkpoint_path": "other.pth"}'),
        ("arch_kwargs", '{"pretrained_cfg_overlay": {"url": "http://x"}}'), ("arch_kwargs", '{"depth": 1e9}'),
        ("arch_kwargs", '{"depth": NaN}'), ("arch_kwargs", '{"norm_layer": {"a": 1}}'), ("arch_kwargs", "[]"),
        ("patch_size", "0"), ("patch_size", "1.5"), ("patch_size", "9" * 5000), ("embed_dim", "-1"),
        ("img_size", "[32]"), ("img_size", "[32, 1e99]"), ("img_size", "7"), ("img_size", "[" * 10_000),
        ("mean", '["a", 1, 2]'), ("mean", "[NaN, 1, 2]"), ("std", "[0, 1, 1]"), ("std", "[]"), ("role", "king"),
        ("provenance", "3"), ("pos_embed_interpolation", "magic"), ("img_size", "9" * 5000), ("mean", None),
        ("format_version", "99"),
    ],
)  # fmt: skip
def test_what_a_file_says_of_itself_is_not_trusted(name: str, value: str | None) -> None:
    """timm.create_model would fetch, or read, whatever these name; an entry may lack, or be of a later release."""
    strings = {key: text for key, text in (make_metadata().to_strings() | {name: value}).items() if text is not None}
    with pytest.raises(ValueError, match=f"(?s)(?=.*some.safetensors).*{name}") as caught:
        BackboneMetadata.from_strings(strings, "some.safetensors")
    assert len(str(caught.value)) < 500


def test_usual_metadata_pass() -> None:
    options = dict(img_size=[32, 48], drop_path_rate=0.1, class_token=True, norm_layer=None, act_layer="gelu")
    metadata = make_metadata(arch_kwargs=options)
    assert BackboneMetadata.from_strings(metadata.to_strings(), "x").arch_kwargs == options


def test_a_number_that_is_repeated_too_often_is_refused_beside_a_backbone(tmp_path: Path) -> None:
    torch.save(make_vit().state_dict() | {"norm.weight": torch.ones(1).expand(2**26 + 1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"norm\.weight \(67108865,\) claims 268,435,460 bytes, of which"):
        read_backbone(tmp_path / "a.pth")


def test_shared_and_expanded_tensors_still_load(tmp_path: Path) -> None:
    model = make_vit()
    state = model.state_dict() | {"norm.weight": torch.ones(1).expand(24)}
    torch.save({"teacher": state, "again": {"weights": state["norm.bias"]}}, tmp_path / "a.pth")
    tensors, _ = read_backbone(tmp_path / "a.pth")
    assert torch.equal(tensors["norm.weight"], torch.ones(24))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("blocks.0.mlp.fc2.weight", (24,)), ("pos_embed", (17,)), ("cls_token", (24,)), ("blocks.1000000000.x", (1,))],
)
def test_shapes_of_no_backbone_leave_the_architecture_open(name: str, shape: tuple[int, ...]) -> None:
    """Found by fuzzing: an IndexError; and a file of a few kilobytes for which a billion blocks were built."""
    tensors = make_vit(embed_dim=192).state_dict() | {name: torch.zeros(shape)}
    with pytest.raises(ValueError, match="a file"):
        infer_architecture(tensors, "a file")
