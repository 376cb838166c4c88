import pytest
import torch
from torchvision.transforms.functional import normalize

from pretrain.losses import restoring_loss


def test_teacher_starts_as_the_student_and_gets_no_gradient(tiny_mst, crops):
    mst = tiny_mst()
    for name, tensor in mst.teacher.state_dict().items():
        assert torch.equal(tensor, mst.student.state_dict()[name])
    mst(**crops())["loss"].backward()
    assert all(p.grad is None for p in mst.teacher.parameters())
    silent = {n for n, p in mst.named_parameters() if p.requires_grad and p.grad is None}
    assert not silent  # else DistributedDataParallel would wait for them


def test_a_micro_batch_equals_the_method_step_by_step(tiny_mst, crops):
    """Views, mask, student, pairs and restoring, written out one image at a time."""
    mst = tiny_mst(masking=dict(num=4))
    mst.eval()  # BatchNorm by its running statistics, so that images do not depend on each other
    batch = crops(batch=3, num_local=2)
    losses = mst(**batch, teacher_temp=0.05)
    student, teacher = mst.student, mst.teacher
    pair_terms, restoring, entropy, hidden = [], [], [], 0
    for b in range(3):
        views = [mst.normalise(view)[None] for view in batch["global_crops"][b]]
        small = [mst.normalise(view)[None] for view in batch["local_crops"][b]]
        probs, outputs = [], []
        for view in views:
            seen = teacher.backbone(view, importance=True)
            probs.append(((teacher.head(seen.cls_token) - mst.dino_loss.center) / 0.05).softmax(dim=-1)[0])
            lowest = seen.importance[0].topk(4, largest=False).indices
            mask = torch.zeros(1, 16, dtype=torch.bool)
            mask[0, lowest] = True
            hidden += int(mask.sum())
            output = student.backbone(view, mask=mask, patch_tokens=True)
            outputs.append(student.head(output.cls_token)[0])
            restoring.append(restoring_loss(mst.decoder(output.patch_tokens), view))
        outputs += [student.head(student.backbone(view).cls_token)[0] for view in small]
        for t, q in enumerate(probs):
            entropy.append(-(q * q.log()).sum())
            pair_terms += [-(q * (s / 0.1).log_softmax(-1)).sum() for v, s in enumerate(outputs) if v != t]
    cross_entropy, restoring = torch.stack(pair_terms).mean(), torch.stack(restoring).mean()
    torch.testing.assert_close(losses["loss_dino"], cross_entropy)
    torch.testing.assert_close(losses["loss_restoring"], restoring)
    torch.testing.assert_close(losses["loss"], cross_entropy + restoring)
    torch.testing.assert_close(losses["teacher_entropy"], torch.stack(entropy).mean())
    assert losses["mask_ratio"].item() == pytest.approx(hidden / (3 * 2 * 16))


def test_views_are_normalised_as_by_torchvision(tiny_mst, crops):
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    views = crops()["global_crops"]
    expected = normalize(views / 255, mean, std)
    torch.testing.assert_close(tiny_mst(mean=mean, std=std).normalise(views), expected, rtol=1e-5, atol=1e-5)


def test_loss_weights(tiny_mst, crops):
    losses = tiny_mst(cross_entropy_weight=2.0, restoring_weight=0.5)(**crops())
    torch.testing.assert_close(losses["loss"], 2 * losses["loss_dino"] + 0.5 * losses["loss_restoring"])


def test_drop_path_is_the_students_alone(tiny_mst):
    mst = tiny_mst(backbone=dict(drop_path_rate=0.5))
    assert type(mst.student.backbone.vit.blocks[1].drop_path1).__name__ == "DropPath"
    assert type(mst.teacher.backbone.vit.blocks[1].drop_path1).__name__ == "Identity"
    assert mst.training and not mst.teacher.backbone.training


def test_the_decoder_needs_every_patch(tiny_mst, crops):
    with pytest.raises(ValueError, match="patch_drop_rate = 0.5"):
        tiny_mst(backbone=dict(patch_drop_rate=0.5))
    assert tiny_mst(backbone=dict(patch_drop_rate=0.5), decoder=None)(**crops())["loss"].isfinite()
