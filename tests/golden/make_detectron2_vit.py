"""Writes what detectron2's ViT computes on small random weights, at two image sizes.

    python tests/golden/make_detectron2_vit.py --detectron2 CHECKOUT

CHECKOUT is a folder with https://github.com/facebookresearch/detectron2 at commit 02b5c4e; what of it is run, says
``make_vitdet.py``.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from make_vitdet import COMMIT, imported
from safetensors.torch import save_file
from torch import nn

TARGET = Path(__file__).parent / "detectron2_vit.safetensors"
MODEL = dict(img_size=32, pretrain_img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
SIZES = ((32, 32), (40, 48))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectron2", type=Path, required=True, help="checkout of facebookresearch/detectron2")
    generator = torch.Generator().manual_seed(0)
    with imported(parser.parse_args(argv).detectron2) as detectron2:
        model = detectron2.ViT(**MODEL, norm_layer=partial(nn.LayerNorm, eps=1e-6)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    tensors = {f"weights/{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    for height, width in SIZES:
        image = torch.randn(1, 3, height, width, generator=generator)
        with torch.no_grad():
            tensors |= {
                f"image/{height}x{width}": image,
                f"features/{height}x{width}": model(image)["last_feat"].contiguous(),
            }
    save_file(tensors, TARGET, metadata={"commit": COMMIT, "model": json.dumps(MODEL)})
    print(f"{TARGET}: {len(tensors)} tensors, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
