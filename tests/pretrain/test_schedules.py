import numpy as np
import pytest

from pretrain.schedules import Schedule, teacher_temp_at


def table(base, final, epochs, steps, warmup=0):
    """A whole cosine schedule with linear warm-up as one array: the formula of DINO's section on implementation."""
    rise = np.linspace(0, base, warmup * steps)
    count = (epochs - warmup) * steps
    fall = [final + (base - final) * (1 + np.cos(np.pi * i / count)) / 2 for i in range(count)]
    return np.concatenate([rise, fall])


def test_all_schedules_of_a_run():
    schedule = Schedule(warmup_epochs=2, warmup_teacher_temp_epochs=3)
    lr, decay = table(5e-4 * 1024 / 256, 1e-6, 6, 4, 2), table(0.04, 0.4, 6, 4)
    momentum = table(0.996, 1.0, 6, 4)
    for t in range(24):
        values = schedule.at(t, steps_per_epoch=4, max_epochs=6, effective_batch=1024)
        assert values.lr == pytest.approx(lr[t], rel=1e-12)
        assert values.weight_decay == pytest.approx(decay[t], rel=1e-12)
        assert values.teacher_momentum == pytest.approx(momentum[t], rel=1e-12)
        assert values.teacher_temp == teacher_temp_at(t // 4, 0.04, 0.07, 3)
        assert values.train_last_layer == (t >= 4)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="schedule.base_lr = 0"):
        Schedule(base_lr=0)
    with pytest.raises(ValueError, match="schedule.teacher_momentum = 2"):
        Schedule(teacher_momentum=2)
    with pytest.raises(ValueError, match="warmup_epochs = 10 must be less than max_epochs = 5"):
        Schedule().check_length(5)


def test_momentum_scaled_to_the_batch_averages_over_as_many_images():
    scaled = Schedule(teacher_momentum=0.9, momentum_batch=64)
    weight = 1.0
    for _ in range(4):  # four steps of 16 images forget as much as one of 64
        weight *= scaled.scale_momentum(0.9, 16)
    assert weight == pytest.approx(0.9)
    assert scaled.scale_momentum(0.9, 128) == pytest.approx(0.81)
    assert Schedule().scale_momentum(0.9, 16) == 0.9
    assert scaled.at(0, 5, 20, 16).teacher_momentum == pytest.approx(0.9**0.25)
    with pytest.raises(ValueError, match="momentum_batch = 0"):
        Schedule(momentum_batch=0)


@pytest.mark.parametrize("name", ["warmup_epochs", "warmup_teacher_temp_epochs", "freeze_last_layer_epochs"])
def test_parts_of_an_epoch_are_refused(name):
    """2.4 steps of warm-up would overshoot: step 2 of it has 2 / 1.4 of the learning rate."""
    with pytest.raises(ValueError, match=f"{name} = 0.4 must be a whole number"):
        Schedule(**{name: 0.4})
    Schedule(**{name: 2.0}, head_only_epochs=0.4)
