"""Sliding inference of a SETR-PUP on a ViT-S over 2048x1024 pixels: ours against mmseg's on the same weights.

    python -m benchmarks slide_inference

Both predict with windows of 768x768 every 512 pixels; logits must agree to 1e-5 before times count. Rounds take turns
in processor time. Peak memory is what each prediction adds to the resident memory of a process of its own.
"""

import multiprocessing
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, compare, peak_memory, processor_clock, take_turns
from mst_transfer.devices import onednn_products
from mst_transfer.registry import MODELS

PEER, OURS = "mmseg", "mst_transfer.SlideEncoderDecoder"
PEER_WITH_OURS = "mmseg, our backbone's products"
TOLERANCE = 1e-5  # of the largest logit


def build(ours: bool, quick: bool) -> nn.Module:
    """The segmentor with random weights, without auxiliary heads, which prediction does not use."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmseg")
    model: dict[str, Any] = Config.fromfile("seg_configs/mst_setr_pup_cityscapes.py").model
    crop = 64 if quick else 768
    model.update(
        type=OURS if ours else "mmseg.EncoderDecoder",
        data_preprocessor=None,
        auxiliary_head=None,
        test_cfg=dict(mode="slide", crop_size=(crop, crop), stride=(crop * 2 // 3, crop * 2 // 3)),
    )
    model["backbone"].update(checkpoint=None, img_size=(crop, crop))
    head = "mst_transfer.SETRUPHead" if ours else "mmseg.SETRUPHead"
    model["decode_head"].update(type=head, norm_cfg=dict(type="BN"))
    torch.manual_seed(0)
    return MODELS.build(model).eval()


def image_of(quick: bool) -> Tensor:
    return torch.randn(1, 3, *((96, 160) if quick else (1024, 2048)), generator=torch.Generator().manual_seed(0))


def predict(model: nn.Module, image: Tensor) -> Any:
    with torch.no_grad():
        return model.predict(image)[0]


def predict_as_torch_does(model: nn.Module, image: Tensor) -> Any:
    """Without the quicker products that our backbone takes on some processors, which the peer's users do not have."""
    with mock.patch.object(onednn_products, "slow_mkl", lambda: False):
        return predict(model, image)


def added_memory(ours: bool, quick: bool, sender: Any, threads: int) -> None:
    """Sends the bytes that one prediction adds to the peak."""
    torch.set_num_threads(threads)
    model, image = build(ours, quick), image_of(quick)
    before = peak_memory()
    predict(model, image)
    sender.send(peak_memory() - before)


def memory_apart(ours: bool, quick: bool) -> float:
    """``added_memory`` of a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=added_memory, args=(ours, quick, sender, torch.get_num_threads()))
    process.start()
    sender.close()
    received = float(receiver.recv())
    process.join()
    return received


def check_equal(models: dict[str, nn.Module], image: Tensor) -> None:
    """Raises ``RuntimeError`` if the logits differ."""
    theirs, ours = (predict(models[name], image).seg_logits.data for name in (PEER, OURS))
    worst = ((theirs - ours).abs().max() / theirs.abs().max()).item()
    if worst > TOLERANCE:
        raise RuntimeError(f"logits differ by {worst:.2g} of the largest, allowed is {TOLERANCE}")


def run(quick: bool) -> list[Row]:
    """Time of a prediction, of its head alone, and memory."""
    models = {PEER: build(False, quick), OURS: build(True, quick)}
    models[OURS].load_state_dict(models[PEER].state_dict())
    image, rounds = image_of(quick), 1 if quick else 3
    check_equal(models, image)  # warms up, too
    size = "x".join(str(side) for side in reversed(image.shape[2:]))
    sliding = take_turns(
        {
            PEER: lambda: predict_as_torch_does(models[PEER], image),
            PEER_WITH_OURS: lambda: predict(models[PEER], image),
            OURS: lambda: predict(models[OURS], image),
        },
        rounds,
        clock=processor_clock,
        warm_up=0,
    )
    crop = image[..., : models[PEER].test_cfg.crop_size[0], : models[PEER].test_cfg.crop_size[1]]
    with torch.no_grad():
        features = models[PEER].extract_feat(crop)
        heads = take_turns(
            {name: lambda model=model: model.decode_head(features) for name, model in models.items()},
            rounds,
            clock=processor_clock,
        )
    memory = {name: [memory_apart(name == OURS, quick)] for name in models}
    note = "most of the time is the backbone and convolutions, which both must do; on Intel products gain nothing"
    return [
        compare(
            f"slide over {size}, SETR-PUP on ViT-S",
            (PEER, sliding[PEER]),
            (OURS, sliding[OURS]),
            goal=1.5,
            note=note,
        ),
        compare(
            f"slide over {size}, SETR-PUP on ViT-S", (PEER_WITH_OURS, sliding[PEER_WITH_OURS]), (OURS, sliding[OURS])
        ),
        compare("SETR-PUP head on one window", (PEER, heads[PEER]), ("mst_transfer.SETRUPHead", heads[OURS])),
        compare(
            f"peak memory of sliding over {size}", (PEER, memory[PEER]), (OURS, memory[OURS]), unit="GB", scale=1e-9
        ),
    ]
