"""The noise schedule against diffusers' own schedulers."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from smoothnb.schedule import Schedule

SETTINGS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


@pytest.fixture(params=["epsilon", "v_prediction"])
def scheduler(request):
    return DDIMScheduler(**SETTINGS, prediction_type=request.param)


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 4, 8, 6, generator=g)
    return x0, noise, torch.tensor([0, 1, 250, 600, 999])


def test_noise_and_targets_are_those_of_diffusers(scheduler, batch):
    x0, noise, t = batch
    schedule = Schedule.of(scheduler)
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), scheduler.add_noise(x0, noise, t))
    expected = noise if schedule.prediction_type == "epsilon" else DDPMScheduler(**SETTINGS).get_velocity(x0, noise, t)
    torch.testing.assert_close(schedule.target(x0, noise, t), expected)
    assert len(schedule) == 1000


def test_the_clean_sample_is_what_diffusers_scheduler_sees(scheduler, batch):
    x0, noise, t = batch
    schedule = Schedule.of(scheduler)
    x_t, prediction = schedule.add_noise(x0, noise, t), noise.roll(1, 0)
    scheduler.set_timesteps(1000)
    seen = [scheduler.step(prediction[i], int(t[i]), x_t[i]).pred_original_sample for i in range(len(t))]
    torch.testing.assert_close(schedule.clean(x_t, prediction, t), torch.stack(seen), rtol=1e-4, atol=1e-4)


def test_a_perfect_prediction_gives_the_clean_sample_back(scheduler, batch):
    x0, noise, t = batch
    schedule = Schedule.of(scheduler)
    x_t = schedule.add_noise(x0, noise, t)
    torch.testing.assert_close(schedule.clean(x_t, schedule.target(x0, noise, t), t), x0, rtol=1e-4, atol=1e-4)


def test_half_precision_is_kept_and_the_clean_sample_is_float32(batch):
    x0, noise, t = (x.half() if x.is_floating_point() else x for x in batch)
    schedule = Schedule.of(DDIMScheduler(**SETTINGS))
    x_t = schedule.add_noise(x0, noise, t)
    assert x_t.dtype == torch.float16
    assert schedule.clean(x_t, noise, t).dtype == torch.float32


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="epsilon or v_prediction, got 'sample'"):
        Schedule(torch.tensor([0.9, 0.1]), "sample")
    with pytest.raises(ValueError, match="zero terminal SNR"):
        Schedule(torch.tensor([0.9, 0.0]))
