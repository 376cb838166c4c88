"""Going on from released weights: complete loads, refusals, the head-only warm-up, resuming."""

from pathlib import Path

import pytest
import torch

from mst_transfer.checkpoint import read_backbone
from pretrain.model import MST
from pretrain.pictures.picture_folder import load_run
from pretrain.run.hooks import backbone_metadata
from pretrain.run.train import main
from pretrain.schedules import Schedule


def save_dino(path: Path, mst: MST) -> dict[str, torch.Tensor]:
    """A training checkpoint with DINO's names: teacher with other weights than the student."""
    teacher = {}
    for name, tensor in mst.student.state_dict().items():
        if name != "backbone.mask_token":
            teacher[name.replace("backbone.vit.", "backbone.")] = torch.randn_like(tensor) * 0.1
    student = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in teacher.items()}
    center = {"center": torch.randn_like(mst.dino_loss.center)}
    torch.save({"student": student, "teacher": teacher, "epoch": 3, "dino_loss": center}, path)
    return teacher


def test_student_and_teacher_start_from_the_files_teacher(tiny_mst, tmp_path: Path):
    fresh = tiny_mst()
    given = save_dino(tmp_path / "dino.pth", fresh)
    mst = tiny_mst(init_from=str(tmp_path / "dino.pth"))
    for network in (mst.student, mst.teacher):
        for name, tensor in network.backbone.vit.state_dict().items():
            torch.testing.assert_close(tensor, given[f"backbone.{name}"], rtol=0, atol=0)
        assert torch.equal(network.head.mlp[0].weight, fresh.student.head.mlp[0].weight)  # same seed, still fresh
    assert torch.equal(mst.student.backbone.mask_token, fresh.student.backbone.mask_token)
    assert not mst.dino_loss.center.any()  # it belongs to the head
    whole = tiny_mst(init_from=str(tmp_path / "dino.pth"), init_head=True)
    content = torch.load(tmp_path / "dino.pth", weights_only=True)
    assert torch.equal(whole.dino_loss.center, content["dino_loss"]["center"])
    for network in (whole.student, whole.teacher):
        for name, tensor in network.head.state_dict().items():
            torch.testing.assert_close(tensor, given[f"head.{name}"], rtol=0, atol=0)


def test_images_are_normalised_as_the_file_says(tiny_mst, save_teacher):
    path = save_teacher(tiny_mst(mean=(0.5,) * 3, std=(0.4,) * 3))
    with pytest.raises(ValueError, match=r"mean \(0.5, 0.5, 0.5\).*\(0.485.*model.std = \(0.4, 0.4, 0.4\)"):
        tiny_mst(init_from=str(path))
    with pytest.raises(ValueError, match=r"std \(0.4"):
        tiny_mst(init_from=str(path), mean=(0.5,) * 3)
    tiny_mst(init_from=str(path), mean=[0.5] * 3, std=[0.4] * 3)


def test_images_are_normalised_as_the_named_weights_were(tiny_mst, tmp_path: Path):
    """A foreign file says nothing, the tag of timm's weights in the config does."""
    augreg = dict(arch="vit_tiny_patch16_224.augreg_in21k")
    save_dino(path := tmp_path / "dino.pth", tiny_mst())
    with pytest.raises(ValueError, match=r"mean \(0.5, 0.5, 0.5\).*timm's for vit_tiny_patch16_224.augreg_in21k"):
        tiny_mst(init_from=str(path), backbone=augreg)
    tiny_mst(init_from=str(path), backbone=augreg, mean=[0.5] * 3, std=[0.5] * 3)
    tiny_mst(init_from=str(path), backbone=dict(augreg, arch="vit_small_patch16_224.dino"))
    with pytest.raises(ValueError, match="no_such_tag"):
        tiny_mst(init_from=str(path), backbone=dict(augreg, arch="vit_tiny_patch16_224.no_such_tag"))


def test_what_does_not_fit_is_refused(tiny_mst, tmp_path: Path):
    save_dino(tmp_path / "dino.pth", tiny_mst())
    with pytest.raises(ValueError, match="its head does not fit.*last_layer"):
        tiny_mst(
            init_from=str(tmp_path / "dino.pth"), init_head=True, head=dict(out_dim=8, hidden_dim=16, bottleneck_dim=8)
        )
    with pytest.raises(ValueError, match="depth 2.*depth 3"):
        tiny_mst(init_from=str(tmp_path / "dino.pth"), backbone=dict(depth=3))
    torch.save(tiny_mst().student.backbone.vit.state_dict(), tmp_path / "backbone.pth")
    with pytest.raises(ValueError, match="holds no teacher's head.*init_head=False"):
        tiny_mst(init_from=str(tmp_path / "backbone.pth"), init_head=True)
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        tiny_mst(init_from=str(tmp_path / "nothing.pth"))
    with pytest.raises(ValueError, match="needs model.init_from"):
        tiny_mst(init_head=True)


def options(*more: str) -> list[str]:
    return ["--seed", "3", "--cfg-options", *more]


def test_the_warm_up_ends_within_an_epoch():
    schedule = Schedule(head_only_epochs=0.5)
    assert [schedule.at(step, 6, 20, 4).train_backbone for step in range(6)] == [False] * 3 + [True] * 3
    with pytest.raises(ValueError, match="never be trained"):
        Schedule(warmup_epochs=1, head_only_epochs=3).check_length(3)


def test_backbone_is_untouched_while_the_head_warms_up(tiny_config: Path, tmp_path: Path, runner_of):
    more = ["train_cfg.schedule.head_only_epochs=1.9", "train_cfg.schedule.freeze_last_layer_epochs=0"]
    runner = runner_of(tiny_config, *options(*more))
    before = {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}
    runner.train()
    state = torch.load(tmp_path / "run" / "iter_8.pth", weights_only=True)["state_dict"]
    changed = {name for name, tensor in state.items() if not torch.equal(tensor, before[name])}
    assert not any("backbone.vit" in name for name in changed)
    assert {"student.backbone.mask_token", "student.head.mlp.0.weight", "decoder.to_rgb.weight"} <= changed


def test_resuming_needs_the_released_file_no_more(tiny_config: Path, tiny_mst, tmp_path: Path, photo_folder: Path):
    runs = []
    for name in ("whole", "broken"):
        released = tmp_path / f"{name}.pth"
        torch.manual_seed(7)
        save_dino(released, tiny_mst())
        args = [str(tiny_config), "--work-dir", str(tmp_path / name), *options(f"model.init_from={released}")]
        assert main(args) == 0
        runs.append(args)
    (tmp_path / "broken.pth").unlink()
    load_run(tmp_path / "broken")  # nor do pictures of the run
    (tmp_path / "broken" / "iter_12.pth").unlink()
    (tmp_path / "broken" / "last_checkpoint").write_text(str(tmp_path / "broken" / "iter_8.pth"))
    assert main([*runs[1][:3], "--resume", *runs[1][3:]]) == 0
    whole, broken = (
        torch.load(tmp_path / name / "iter_12.pth", weights_only=True)["state_dict"] for name in ("whole", "broken")
    )
    for name, tensor in whole.items():
        assert torch.equal(tensor, broken[name]), name
    _, metadata = read_backbone(tmp_path / "broken" / "teacher.safetensors")
    assert metadata is not None and metadata.provenance["init_from"] == str(tmp_path / "broken.pth")


def test_a_checkpoint_of_our_own_gives_teacher_head_and_centre(
    finished: Path, tiny_config: Path, tmp_path: Path, runner_of
):
    """As the start of another run: ``epoch_N.pth`` holds everything, ``teacher.safetensors`` the backbone."""
    state = torch.load(finished / "iter_12.pth", weights_only=True)["state_dict"]
    for name, head in (("iter_12.pth", True), ("teacher.safetensors", False)):
        more = [f"model.init_from={finished / name}", f"model.init_head={head}"]
        ours = runner_of(tiny_config, "--work-dir", str(tmp_path / name), *options(*more)).model.state_dict()
        taken = {key for key in ours if torch.equal(ours[key], state[key])}
        parts = ("teacher.backbone", "teacher.head", "dino_loss.center") if head else ("teacher.backbone",)
        assert {key for key in ours if key.startswith(parts)} <= taken
        for key in (key for key in ours if key.startswith("teacher.")):
            assert torch.equal(ours[key], ours[key.replace("teacher.", "student.")])
        fresh = {"student.backbone.mask_token", "decoder.to_rgb.weight"}
        assert not (taken & (fresh if head else fresh | {"student.head.mlp.0.weight", "dino_loss.center"}))


def test_a_students_file_is_taken_as_it_is(tiny_mst, tmp_path: Path):
    save_dino(tmp_path / "dino.pth", tiny_mst())
    student = torch.load(tmp_path / "dino.pth", weights_only=True)["student"]
    torch.save({"student": student}, tmp_path / "student.pth")
    mst = tiny_mst(init_from=str(tmp_path / "student.pth"))
    for name, tensor in mst.student.backbone.vit.state_dict().items():
        assert torch.equal(tensor, student[f"module.backbone.{name}"])


def test_what_only_regularises_training_is_not_handed_on(tiny_mst):
    """A file's options build the backbone of a transfer, which would drop as much, or refuse to."""
    rates = dict(drop_path_rate=0.1, patch_drop_rate=0.25, attn_drop_rate=0.1, proj_drop_rate=0.1, pos_drop_rate=0.1)
    files = [backbone_metadata(tiny_mst(backbone=options, decoder=None), "teacher", {}) for options in ({}, rates)]
    assert files[0].arch_kwargs == files[1].arch_kwargs and files[0].arch_kwargs["depth"] == 2


@pytest.mark.parametrize("theirs", ["dino", "timm"])
@pytest.mark.parametrize("ours", ["dino", "timm"])
def test_other_resampling_than_in_the_files_training_is_told(tiny_mst, save_teacher, monkeypatch, ours, theirs):
    path = save_teacher(tiny_mst(backbone=dict(pos_embed_interpolation=theirs)))
    lines: list[str] = []
    monkeypatch.setattr("pretrain.run.warm_start.print_log", lambda text, *args, **options: lines.append(text))
    tiny_mst(init_from=str(path), backbone=dict(pos_embed_interpolation=ours))
    said = f"model.backbone.pos_embed_interpolation = '{theirs}'" in "".join(lines)
    assert said == (ours != theirs)
