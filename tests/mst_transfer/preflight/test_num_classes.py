"""Heads with other classes than the data are refused, or set."""

import pytest
from mmengine.config import Config
from small_sets import coco_config, seg_config, write_coco, write_masks

from mst_transfer.preflight.check import check_datasets
from mst_transfer.preflight.num_classes import check_heads, set_num_classes


def test_heads_with_another_number_of_classes_are_refused(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(ValueError, match="model.roi_head.bbox_head.num_classes=80, but .* has 2 classes"):
        check_datasets(coco_config(tmp_path, num_classes=80))
    write_masks(tmp_path)
    cfg = seg_config(tmp_path)
    cfg.model.auxiliary_head[0].num_classes = 19
    with pytest.raises(ValueError, match="model.auxiliary_head.0.num_classes=19, but .* has 2 classes"):
        check_datasets(cfg)


def test_weights_of_other_classes_are_refused():
    model = dict(decode_head=dict(num_classes=2, loss_decode=dict(class_weight=[1.0] * 19)))
    (finding,) = check_heads(model, 2, "train")
    assert "model.decode_head.loss_decode.class_weight has 19 weights, but train has 2 classes" in finding.text
    for fine in ([1.0, 2.0], [1.0, 2.0, 0.1], None):
        model["decode_head"]["loss_decode"]["class_weight"] = fine
        assert not list(check_heads(model, 2, "train"))


def model_of(*numbers):
    heads = [dict(num_classes=number) for number in numbers]
    return Config(dict(model=dict(backbone=dict(num_classes=7), rpn_head=dict(num_classes=1), heads=heads))).model


def test_numbers_are_set_where_they_are_the_former_ones():
    model = model_of(80, 3, 80)
    assert set_num_classes(model, 3, former=80) == ["model.heads.0", "model.heads.2"]
    assert [head.num_classes for head in model.heads] == [3, 3, 3]
    assert model.backbone.num_classes == 7 and model.rpn_head.num_classes == 1
    assert set_num_classes(model, 3, former=80) == []
    assert len(set_num_classes(model_of(19, 3, 19), 3, former=None)) == 2


@pytest.mark.parametrize(("numbers", "former"), [((80, 5), 80), ((5, 5), 80), ((5, 19), None)])
def test_numbers_that_contradict_the_data_are_refused(numbers, former):
    with pytest.raises(ValueError, match="the data have 3 classes, but the config sets model.heads.0.num_classes="):
        set_num_classes(model_of(*numbers), 3, former)


def test_equal_weights_follow_the_number():
    loss = dict(class_weight=[1.0] * 80 + [0.1])
    model = Config(dict(model=dict(bbox_head=dict(num_classes=80, loss_cls=loss)))).model
    set_num_classes(model, 2, former=80)
    assert model.bbox_head.loss_cls.class_weight == [1.0, 1.0, 0.1]
    model = Config(dict(model=dict(head=dict(num_classes=19, loss=dict(class_weight=[0.8, 0.9] * 9 + [1.0]))))).model
    with pytest.raises(ValueError, match="class_weight has 19 weights for other classes"):
        set_num_classes(model, 2, former=19)
