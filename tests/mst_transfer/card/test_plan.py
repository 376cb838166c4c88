"""What is another job, and what another protocol."""

from dataclasses import replace

from small_cards import SEG, plan_of

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.plan import Options, Plan, make_jobs, recipe_digests
from mst_transfer.card.tasks import Recipe, Task, heads


def test_what_an_outcome_depends_on_makes_another_job_and_another_protocol(world, tmp_path):
    first = plan_of(world, tmp_path, "--labels", "2")
    for words in (("--labels", "3"), ("--labels", "2", "--max-side", "32"), ("--labels", "2", "--num-blocks", "2")):
        other = plan_of(world, tmp_path, *words)
        assert not {job.id for job in first.jobs} & {job.id for job in other.jobs}
        assert first.protocol() != other.protocol()
    blocks = plan_of(world, tmp_path, "--labels", "2", "--group", r"scene_00000(\d)/2")
    assert blocks.jobs == first.jobs and blocks.protocol() != first.protocol(), "other intervals of the same outcomes"
    again = plan_of(world, tmp_path, "--labels", "2")
    assert (again.jobs, again.protocol()) == (first.jobs, first.protocol())


def test_a_learning_rate_is_chosen_once_for_all_seeds_and_anew_for_all_else():
    options = Options(["3"], [0, 1], ["all"], [0, 1], False, [0.5, 2], "", 512, 1, "float32")
    task = Task("camvid", "segmentation", [Recipe("linear", "linear.py")])
    checkpoints = [Checkpoint(name, "x.pth", "", "", "vit", {}, (), (), 16, 384, 1, 224) for name in ("seed0", "seed1")]
    found = set()
    for asked in (options, replace(options, factors=[1, 2])):
        jobs = make_jobs(Plan(asked, checkpoints, [task], {"camvid": ""}, 16, {}, ""))
        choices = {(job.checkpoint, job.choice) for job in jobs}
        assert len(jobs) == 4 and len(choices) == 2
        found |= {choice for _, choice in choices}
    assert len(found) == 4


def test_views_of_class_folders_are_the_same_for_all_checkpoints():
    """The smallest of the sizes that they were trained at, in whole patches of all; it belongs to the protocol."""
    options = Options(["3"], [0], [], [0], True, [1], "", 512, 1, "float32")
    shapes = (("dinov2", 14, 518), ("dino", 16, 224))
    checkpoints = [
        Checkpoint(name, "x.pth", "", "", "vit", {}, (), (), patch, 384, 1, size) for name, patch, size in shapes
    ]
    plans = [
        Plan(options, checkpoints, [Task("some", kind)], {"some": ""}, 112, {}, "")
        for kind in ("classification", "segmentation")
    ]
    smaller = replace(plans[0], checkpoints=[replace(one, img_size=112) for one in checkpoints])
    assert [plan.image_size for plan in (plans[0], smaller)] == [224, 112]
    assert plans[0].protocol() != smaller.protocol() and "image_size" not in plans[1].protocol()
    assert not {job.id for job in make_jobs(smaller)} & {job.id for job in make_jobs(plans[0])}


def test_other_pipelines_and_backbone_options_make_another_head(world, tmp_path):
    config, digests = tmp_path / "mst_tiny_seg.py", set()
    resize = 'val_dataloader = dict(dataset=dict(pipeline=[dict(type="LoadImageFromFile")]))'
    frozen, average = "model = dict(backbone=dict(frozen_stages=1))", 'custom_hooks = [dict(type="EMAHook")]'
    for changed in ("", frozen, resize, average):
        config.write_text(f"{SEG}{changed}\n")
        digests |= {*recipe_digests([Task("x", "segmentation", heads(str(config)))], ["all"]).values()}
    assert len(digests) == 4
