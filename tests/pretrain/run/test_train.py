"""Runs from the command line: logs, checkpoints, exact resuming, refusals."""

import json
import math
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from mst_transfer.checkpoint import read_backbone
from mst_transfer.datasets.shard_writer import write_shards
from pretrain.run.loop import PretrainLoop
from pretrain.run.train import main
from pretrain.schedules import Schedule


def weights(work_dir: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(work_dir / name, weights_only=True, map_location="cpu")["state_dict"]


def test_logs(finished: Path):
    lines = [json.loads(line) for line in next(finished.glob("*/vis_data/scalars.json")).read_text().splitlines()]
    assert len(lines) == 12
    expected = {"loss", "loss_dino", "loss_restoring", "teacher_entropy", "lr", "weight_decay", "teacher_momentum"}
    assert expected | {"mask_ratio", "images_per_s", "data_share", "grad_norm", "teacher_temp"} <= set(lines[-1])
    log = next(finished.glob("*/*.log")).read_text()
    assert "eta:" in log
    assert re.search(r"plan: 1 process\(es\) x batch 4 x accumulation 1 = effective batch 4\n  24 images, 6 steps", log)


def test_backbone_files_hold_the_networks(finished: Path):
    state = weights(finished, "iter_12.pth")
    for role in ("teacher", "student"):
        tensors, metadata = read_backbone(finished / f"{role}.safetensors", role=role)
        prefix = f"{role}.backbone.vit."
        expected = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        assert tensors.keys() == expected.keys() and all(torch.equal(tensors[k], expected[k]) for k in expected)
        found = (metadata.role, metadata.patch_size, tuple(metadata.img_size), metadata.embed_dim)
        assert found == (role, 8, (32, 32), 24)
        assert metadata.provenance["step"] == 12 and metadata.provenance["seed"] == 5
        assert tuple(metadata.mean) == (0.485, 0.456, 0.406) and tuple(metadata.std) == (0.229, 0.224, 0.225)
        model = timm.create_model(metadata.arch, num_classes=0, **metadata.arch_kwargs)
        model.load_state_dict(load_file(finished / f"{role}.safetensors"), strict=True)


@pytest.mark.parametrize("stop", [4, 8], ids=["in epoch 1", "in epoch 2"])
def test_killed_and_resumed_equals_uninterrupted(finished: Path, tiny_config: Path, tmp_path: Path, stop: int):
    """Bit for bit: weights, teacher, centre, BatchNorm statistics and optimiser."""
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (resumed / f"iter_{stop}.pth").write_bytes((finished / f"iter_{stop}.pth").read_bytes())
    assert main([str(tiny_config), "--work-dir", str(resumed), "--seed", "5", "--resume"]) == 0
    expected, ours = weights(finished, "iter_12.pth"), weights(resumed, "iter_12.pth")
    different = [name for name in expected if not torch.equal(expected[name], ours[name])]
    assert not different and expected.keys() == ours.keys()
    assert not (resumed / f"iter_{stop - 2}.pth").exists() and (resumed / "teacher.safetensors").exists()


def test_the_plan_says_what_a_short_run_does_not_reach(tiny_config: Path, tmp_path: Path, runner_of):
    runner = runner_of(tiny_config)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    loop = runner.train_loop  # of 2 epochs
    loop.seed = 0
    loop.schedule = Schedule(warmup_epochs=1, warmup_teacher_temp_epochs=4, freeze_last_layer_epochs=2)
    assert "0.04 to 0.05: teacher_temp = 0.07 is not reached" in loop.plan() and "never trained" in loop.plan()
    loop.schedule = Schedule(warmup_epochs=1, warmup_teacher_temp_epochs=2)
    assert "0.04 to 0.07\n" in loop.plan() + "\n" and "never trained" not in loop.plan()


def test_every_step_draws_its_stochastic_depth_anew(tiny_config: Path, tmp_path: Path, monkeypatch):
    drawn, step = [], PretrainLoop.optimizer_step

    def note(self: PretrainLoop, *args):
        drawn.append(float(torch.rand(())))
        return step(self, *args)

    monkeypatch.setattr(PretrainLoop, "optimizer_step", note)
    main([str(tiny_config), "--work-dir", str(tmp_path / "run"), "--seed", "5"])
    assert len(drawn) == len(set(drawn)) == 12


def test_seed_decides(tiny_config: Path, tmp_path: Path, runner_of):
    seen = []
    for seed in (5, 6):
        runner = runner_of(tiny_config, "--work-dir", str(tmp_path / str(seed)), "--seed", str(seed))
        runner.train()
        loop = runner.train_loop
        assert loop.dataloader.dataset.seed == loop.dataloader.sampler.seed == loop.mst.mask_generator.seed == seed
        seen.append(loop.dataloader.dataset[0, 0]["global_crops"])
    assert not torch.equal(*seen)


def test_memory_and_speed_are_the_users_to_change(finished: Path, tiny_config: Path, tmp_path: Path):
    """A checkpoint made without ``grad_checkpointing`` goes on with it, also one whose file still names it."""
    from mst_transfer.runs import identity

    state = torch.load(finished / "iter_8.pth", weights_only=True)
    state["meta"][identity.KEY]["model.backbone.grad_checkpointing"] = "False"
    state["meta"][identity.KEY]["train_dataloader.dataset.photometric"] = "device"
    torch.save(state, tmp_path / "iter_8.pth")
    for checkpoint in (finished / "iter_8.pth", tmp_path / "iter_8.pth"):
        resume = ["--work-dir", str(tmp_path / checkpoint.parent.name), "--resume", str(checkpoint)]
        options = ["model.backbone.grad_checkpointing=True", "model.backbone.compile_blocks=False"]
        assert main([str(tiny_config), *resume, "--cfg-options", *(f"+{option}" for option in options)]) == 0
        ours = weights(tmp_path / checkpoint.parent.name, "iter_12.pth")
        for name, tensor in weights(finished, "iter_12.pth").items():
            torch.testing.assert_close(ours[name], tensor, msg=name)


def test_an_error_in_the_middle_of_training_keeps_its_traceback(tiny_config: Path, tmp_path: Path, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("not the user's")

    monkeypatch.setattr("pretrain.model.MST.forward", broken)
    with pytest.raises(ValueError, match="not the user's"):
        main([str(tiny_config), "--work-dir", str(tmp_path / "run")])


def test_resume_without_a_checkpoint_says_so(tiny_config: Path, tmp_path: Path, capsys):
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "new"), "--resume"]) == 0
    assert "has no checkpoint yet" in capsys.readouterr().err
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "new"), "--resume", "gone.pth"]) == 1
    assert "gone.pth does not exist" in capsys.readouterr().err


def test_backbones_whose_checkpoints_are_gone_are_not_written_over(tiny_config: Path, tmp_path: Path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "teacher.safetensors").write_text("trained")
    words = [str(tiny_config), "--work-dir", str(tmp_path / "run")]
    assert main(words) == 1 and main([*words, "--check-only"]) == 1
    assert capsys.readouterr().err.count("teacher.safetensors") == 2
    assert main([*words, "--resume"]) == 0  # a job that was started again before its first checkpoint
    assert (tmp_path / "run" / "earlier_1" / "teacher.safetensors").read_text() == "trained"


def test_last_layer_is_frozen_in_the_first_epoch(finished: Path):
    name = "student.head.last_layer.weight_v"
    first, second, third = (weights(finished, f"iter_{step}.pth")[name] for step in (4, 8, 12))
    assert not torch.equal(second, third)
    start = weights(finished, "iter_4.pth")["teacher.head.last_layer.weight_v"]
    assert torch.equal(first, start)  # neither moved from the common start


def test_non_finite_steps_are_left_out_and_then_stop_the_run(tiny_config: Path, tmp_path: Path, monkeypatch, capsys):
    from pretrain.model import MST

    forward, seen, statistics = MST.forward, [], []

    def poisoned(self, *args, step=0, **kwargs):
        losses = forward(self, *args, step=step, **kwargs)
        statistics.append(self.decoder.stages[0][1].running_mean.clone())
        seen.append(self.student.head.mlp[0].weight.detach().clone())
        if step >= 5:
            losses["loss"] = losses["loss"] * float("nan")
            next(self.decoder.buffers()).data.fill_(float("nan"))
        return losses

    monkeypatch.setattr(MST, "forward", poisoned)
    options = ["--cfg-options", "train_cfg.max_nonfinite_steps=3"]
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run"), *options]) == 1
    assert re.search(r"3 steps in a row, up to step 7.*iter_4.pth.*base_lr", capsys.readouterr().err)
    assert torch.equal(seen[5], seen[6]) and torch.equal(seen[6], seen[7])  # the weights were not touched
    assert torch.stack(statistics).isfinite().all()  # nor BatchNorm's statistics
    record = json.loads((tmp_path / "run" / "nonfinite_step_5_rank_0.json").read_text())
    assert record["step"] == 5 and len(record["samples"]) == 4
    assert record["logged"]["loss of this process"] == "nan" and Path(record["samples"][0]["path"]).is_file()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_no_number_is_left_out_though_its_gradient_is_one(
    tiny_config: Path, tmp_path: Path, monkeypatch, accumulation: int
):
    from pretrain.model import MST

    forward, weights_seen = MST.forward, {}

    def poisoned(self, *args, step=0, **kwargs):
        losses = forward(self, *args, step=step, **kwargs)
        weights_seen.setdefault(step, self.student.head.mlp[0].weight.detach().clone())
        if step == 1:
            losses["loss"] = losses["loss"] + float("nan")  # its gradient is as it was
        return losses

    monkeypatch.setattr(MST, "forward", poisoned)
    words = ["--cfg-options", f"train_cfg.accumulation_steps={accumulation}", "train_dataloader.batch_size=2"]
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run"), *words, "train_cfg.max_epochs=2"]) == 0
    assert torch.equal(weights_seen[1], weights_seen[2]) and not torch.equal(weights_seen[2], weights_seen[3])
    assert [path.name for path in (tmp_path / "run").glob("nonfinite_*")] == ["nonfinite_step_1_rank_0.json"]
    (log,) = (tmp_path / "run").glob("*/vis_data/scalars.json")
    rows = [row for row in map(json.loads, log.read_text().splitlines()) if "lr" in row]
    assert [row.get("left_out_steps", 0) for row in rows] == [0] + [1] * (24 // accumulation - 1)
    assert rows[1]["loss"] == rows[0]["loss"] and all(math.isfinite(row[name]) for row in rows for name in row)


@pytest.mark.parametrize(
    "options, words",
    [
        (["train_dataloader.dataset.data_root=nowhere"], ["nowhere", "does not exist"]),
        (["model.masking.mode=attend"], ["attend", "attention, random, none"]),
        (["model.backbone.arch=vit_smal_patch16_224"], ["vit_smal_patch16_224", "vit_small_patch16_224"]),
        (["train_cfg.accumulation_steps=0"], ["accumulation_steps = 0"]),
        (["train_cfg.schedule.warmup_epochs=7"], ["warmup_epochs = 7", "max_epochs = 2"]),
        (["train_dataloader.batch_size=100"], ["24 images", "100"]),
        (["train_cfg.schedul.base_lr=1"], ["schedul", "schedule"]),
        (["train_dataloader.dataset.global_size=30"], ["30x30", "patch size 8"]),
        (["+model.backbone.global_pool=avg"], ["fc_norm", "global_pool='token'"]),
        (["model.masking.num=17"], ["masking.num = 17", "16 patches"]),
        (["+train_cfg.schedule.base_learning_rate=1"], ["base_learning_rate"]),
    ],
)
def test_wrong_input_is_refused_by_name(tiny_config: Path, tmp_path: Path, options, words, capsys):
    status = main([str(tiny_config), "--work-dir", str(tmp_path / "run"), "--cfg-options", *options])
    message = capsys.readouterr().err
    assert status == 1 and all(word in message for word in words)


def test_accumulation_equals_one_large_batch(sgd_config: Path, tmp_path: Path):
    """Weights, centre and logged losses: 2 x 4 images a step against 8, without what depends on the micro-batch."""
    common = ["model.decoder=None", "model.backbone.drop_path_rate=0"]
    results = []
    for name, options in {
        "accumulated": ["train_dataloader.batch_size=4", "train_cfg.accumulation_steps=2"],
        "large": ["train_dataloader.batch_size=8"],
    }.items():
        options += [*common, "default_hooks.checkpoint.interval=6"]
        assert main([str(sgd_config), "--work-dir", str(tmp_path / name), "--cfg-options", *options]) == 0
        results.append(torch.load(tmp_path / name / "iter_6.pth", weights_only=True))
    accumulated, large = results
    for name, tensor in large["state_dict"].items():
        torch.testing.assert_close(accumulated["state_dict"][name], tensor, rtol=1e-4, atol=2e-6, msg=name)
    assert large["state_dict"]["dino_loss.center"].abs().max() > 1e-3
    for name in ("loss_dino", "teacher_entropy", "grad_norm"):
        first, second = (result["message_hub"]["log_scalars"][f"train/{name}"].data[0] for result in results)
        torch.testing.assert_close(torch.tensor(first), torch.tensor(second), rtol=1e-4, atol=1e-5, msg=name)


def test_batches_are_pinned_where_there_is_a_gpu(tiny_config: Path, tmp_path: Path, runner_of) -> None:
    for words, wanted in (([], True), (["--cfg-options", "train_dataloader.pin_memory=False"], False)):
        runner = runner_of(tiny_config, "--work-dir", str(tmp_path / f"run_{wanted}"), *words)
        assert runner.train_loop.dataloader.loader.pin_memory == (wanted and torch.cuda.is_available())
        assert runner.model.data_preprocessor._non_blocking


def test_shards_killed_and_resumed_are_the_folder(
    finished: Path, tiny_config: Path, photo_folder: Path, tmp_path: Path
) -> None:
    """On shards, resumed with workers after eight steps: the weights of the whole run on the folder."""
    write_shards(str(photo_folder), str(tmp_path / "shards"), 20_000, 1)
    out = tmp_path / "run"
    words = [str(tiny_config), "--work-dir", str(out), "--seed", "5", "--cfg-options"]
    words += [f"train_dataloader.dataset.data_root={tmp_path / 'shards'}"]
    assert main(words) == 0
    for path in [*out.glob("iter_12*"), out / "last_checkpoint", out / "teacher.safetensors"]:
        path.unlink()
    assert main([*words[:5], "--resume", *words[5:], "train_dataloader.num_workers=2"]) == 0
    ours, theirs = (load_file(folder / "teacher.safetensors") for folder in (out, finished))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
