"""A dry run takes real steps, reports them and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mst_transfer.cli.main import main
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data
from mst_transfer.engine.fit.devices import adapt_to_devices
from mst_transfer.engine.plan import dry_run as dry_run_module
from mst_transfer.engine.plan.dry_run import dry_run
from mst_transfer.engine.plan.dry_run_report import DryRunReport, out_of_memory_advice
from mst_transfer.engine.run import RunRefusedError, load_run_config


def test_a_segmentor_is_timed_and_nothing_written(tiny_seg_config: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(dry_run_module.tempfile, "tempdir", str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", str(tiny_seg_config), "--dry-run", "2"]) == 0
    out = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    lines = {line[2:20].strip(): line[20:].strip() for line in out.splitlines() if line.startswith("  ")}
    assert lines["largest input"] == "2 × 3 × 32 × 32"
    assert lines["step"].count(",") == 2 and " s, median of " in lines["step"]
    assert "GiB" in lines["peak, training"] and ("GPU" in lines["peak, training"]) == torch.cuda.is_available()
    assert lines["validations"].startswith("2 × 8 batches")  # two epochs, each validated on 8 images
    assert lines["whole run"].startswith("8 steps: about ")  # two epochs of 8 images, two a step
    assert lines["loss"].count("→") == 1 and "decode.loss_ce" in lines["loss"]


def test_the_steps_are_those_of_training(tiny_seg_config: Path, tmp_path: Path) -> None:
    """On the same batches, the losses are those of plain steps: the oracle is mmengine's own train_step."""
    from mmengine.runner import Runner

    cfg = load_run_config(str(tiny_seg_config), seed=3)
    cfg.exact_resume = False  # mmengine's own loops and draws, as in the oracle
    report = dry_run(cfg, 3)
    plain = load_run_config(str(tiny_seg_config), seed=3, work_dir=str(tmp_path / "plain"))
    plain.default_hooks = dict(plain.default_hooks, checkpoint=None)
    plain.train_dataloader.sampler.shuffle = False
    plain.train_cfg = dict(type="IterBasedTrainLoop", max_iters=3, val_interval=9)
    plain.val_dataloader = plain.val_cfg = plain.val_evaluator = None
    plain.test_dataloader = plain.test_cfg = plain.test_evaluator = None
    adapt_to_devices(plain, 1, on_cuda=False)
    runner = Runner.from_cfg(plain)
    losses = []
    step = runner.model.train_step
    runner.model.train_step = lambda *args, **kwargs: losses.append(step(*args, **kwargs)["loss"].item()) or {}
    runner.train()
    assert [values["loss"] for values in report.losses] == pytest.approx(losses, rel=1e-5)


def test_a_detector_sees_its_largest_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    make_sample_data(tmp_path / "sample", SampleDataRequest(num_train=4, num_val=2, num_photos=1, size=64))
    monkeypatch.setenv("MST_DATA_ROOT", str(tmp_path))
    options = {
        "model.backbone.checkpoint": None,
        "model.backbone.depth": 4,
        "train_dataloader.num_workers": 0,
        "train_dataloader.batch_size": 2,
        "train_dataloader.dataset.filter_cfg": None,
        "train_dataloader.dataset.pipeline.2.scale_factor": 1.5,
    }
    cfg = load_run_config(str(root / "det_configs/mst_maskrcnn_sample.py"), cfg_options=options, accumulate=2)
    report = dry_run(cfg, 1)
    assert len(report.losses) == 3 and report.accumulation == 2  # so that the optimizer's state counts
    assert set(report.input_shapes) == {(2, 3, 96, 96)}
    assert report.num_steps_of_run == 24 * 2 and report.num_validations == 3 and report.num_val_batches == 2
    assert all(np.isfinite(list(losses.values())).all() for losses in report.losses)
    assert "accumulation" in str(report) and report.val_seconds


@pytest.mark.parametrize(
    ("train_cfg", "expected"),
    [
        (dict(max_epochs=12, val_interval=1), 12),
        (dict(max_epochs=2, val_interval=5), 1),
        (dict(max_epochs=3, val_begin=4), 0),
        (dict(type="IterBasedTrainLoop", max_iters=184375, val_interval=5000), 37),  # ViTDet
        (dict(type="IterBasedTrainLoop", max_iters=7, val_interval=3, val_begin=4), 2),
        (dict(max_epochs=10, val_interval=4, dynamic_intervals=[(7, 1)]), 6),  # 4, 6, then each
    ],
)
def test_validations_are_those_of_mmengines_loops(train_cfg: dict, expected: int, monkeypatch) -> None:
    from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

    assert dry_run_module._num_validations(train_cfg) == expected
    if train_cfg.get("max_iters", 0) > 1000:
        return
    done: list[int] = []
    by_epoch = "max_epochs" in train_cfg
    loop = object.__new__(EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop)
    runner = MagicMock()
    runner.val_loop.run = lambda: done.append(loop._epoch if by_epoch else loop._iter)
    monkeypatch.setattr("torch.utils.data.DataLoader.__len__", lambda self: 2)
    loader = MagicMock(spec=torch.utils.data.DataLoader, dataset=[0, 1])
    loader.__iter__.side_effect = lambda: iter([0, 1])
    loader.__len__.return_value = 2
    loop.__init__(runner, loader, **{key: value for key, value in train_cfg.items() if key != "type"})  # type: ignore[misc]
    loop.run()
    assert len(done) == expected


@pytest.mark.parametrize("size", [(64, 128), (48, 8)], ids=["the largest", "not the largest"])
def test_an_image_that_the_test_pipeline_resizes_is_validated(
    size: tuple[int, int], tiny_seg_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first images have the size that the pipeline makes; the sixth has not."""
    import cv2
    from mmseg.models import EncoderDecoder

    for folder, ending in (("images", "jpg"), ("masks", "png")):
        path = str(tmp_path / "tiny data" / folder / f"5.{ending}")
        cv2.imwrite(path, cv2.resize(cv2.imread(path, -1), size[::-1], interpolation=cv2.INTER_NEAREST))
    with tiny_seg_config.open("a") as file:
        file.write(
            "image_checks = False\n"
            '_resize = dict(type="Resize", scale=(64, 32), keep_ratio=True)\n'
            "_test = [_pipeline[0], _resize, *_pipeline[1:]]\n"
            "_train = [*_pipeline[:2], dict(_resize, scale=(32, 32), keep_ratio=False), _pipeline[2]]\n"
            "train_dataloader.update(dataset=dict(_dataset, pipeline=_train))\n"
            "val_dataloader.update(dataset=dict(_dataset, pipeline=_test))\n"
        )
    shapes = []
    step = EncoderDecoder.val_step

    def seen(self: EncoderDecoder, data: dict) -> list:
        shapes.extend((one.ori_shape, one.img_shape) for one in data["data_samples"])
        return step(self, data)

    monkeypatch.setattr(EncoderDecoder, "val_step", seen)
    dry_run(load_run_config(str(tiny_seg_config)), 1)
    expected = {(64, 128): [((64, 128), (32, 64))], (48, 8): [((32, 32), (32, 32)), ((48, 8), (64, 11))]}
    assert shapes == expected[size]


def test_losses_that_are_not_finite_are_refused(train) -> None:
    said = train("--dry-run", options=["optim_wrapper.optimizer.lr=1e25"], status=1)
    assert "losses that are not finite" in said


def test_too_little_memory_is_one_message(tiny_seg_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB")

    monkeypatch.setattr(dry_run_module, "_measure", fails)
    with pytest.raises(RunRefusedError, match="(?s)batch size 2 a process: CUDA out of memory.*batch_size=1.*with_cp"):
        dry_run(load_run_config(str(tiny_seg_config)))
    monkeypatch.setattr(dry_run_module, "_measure", lambda *_: (_ for _ in ()).throw(RuntimeError("other")))
    with pytest.raises(RuntimeError, match="other"):
        dry_run(load_run_config(str(tiny_seg_config)))


def test_only_what_is_not_done_yet_is_advised() -> None:
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=1),
            optim_wrapper=dict(type="AmpOptimWrapper"),
            model=dict(backbone=dict(with_cp=True)),
        )
    )
    advice = out_of_memory_advice(cfg, RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert advice is not None and "crop" in advice
    assert not any(word in advice for word in ("with_cp", "--amp", "batch_size="))
    assert out_of_memory_advice(cfg, MemoryError()) and out_of_memory_advice(cfg, RuntimeError("shape")) is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, to reset the peak")
@pytest.mark.skipif(torch.cuda.is_available(), reason="about memory of the CPU")
def test_peak_memory_is_what_was_allocated_and_let_go(root: Path) -> None:
    """In a new process: in a large one the system may take back what rests, and hide what is new."""
    code = (
        "import os, numpy as np, torch\n"
        "from mst_transfer.engine.plan.meters import PeakMemory\n"
        "size = 64 * 2**20\n"
        "memory = PeakMemory()\n"
        "block = np.ones(size, np.uint8)\n"
        "del block\n"
        "assert 0.9 * size < memory.read() < 1.5 * size, memory.read()\n"
        "if os.access('/proc/self/clear_refs', os.W_OK):\n"
        "    memory.reset()\n"
        "    assert memory.read() < 0.5 * size, memory.read()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def report(**changes: object) -> DryRunReport:
    facts: dict = dict(
        config="c.py", world_size=1, accumulation=1, input_shapes=[(2, 3, 8, 8)], device="CPU",
        step_seconds=[9.0, 1.0, 1.0], losses=[dict(loss=2.0)], load_seconds=3.0, num_workers=2,
        train_memory=2**30, num_steps_of_run=100,
    )  # fmt: skip
    return DryRunReport(**(facts | changes))


def test_the_whole_run_waits_for_what_its_workers_cannot_load_meanwhile() -> None:
    assert report().wait == pytest.approx(0.5)
    assert report(num_workers=4).wait == 0 and report(num_workers=0).wait == 3.0
    assert "100 steps: about 2 min" in str(report())
    assert "about 2.8 h" in str(report(num_steps_of_run=6667)) and "days" in str(report(num_steps_of_run=200_000))
