"""The noise schedule against diffusers' own schedulers."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from smoothnb.schedule import Schedule

SETTINGS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


@pytest.fixture(params=["epsilon", "v_prediction", "sample"])
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
    targets = {"epsilon": noise, "v_prediction": DDPMScheduler(**SETTINGS).get_velocity(x0, noise, t), "sample": x0}
    expected = targets[schedule.prediction_type]
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


def test_a_perfect_prediction_gives_the_noise_back(scheduler, batch):
    x0, noise, t = (x[2:] for x in batch)
    schedule = Schedule.of(scheduler)
    x_t = schedule.add_noise(x0, noise, t)
    torch.testing.assert_close(schedule.noise(x_t, schedule.target(x0, noise, t), t), noise, rtol=1e-4, atol=1e-4)


def test_half_precision_is_kept_and_the_clean_sample_is_float32(batch):
    x0, noise, t = (x.half() if x.is_floating_point() else x for x in batch)
    schedule = Schedule.of(DDIMScheduler(**SETTINGS))
    x_t = schedule.add_noise(x0, noise, t)
    assert x_t.dtype == torch.float16
    assert schedule.clean(x_t, noise, t).dtype == torch.float32


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="epsilon or v_prediction or sample or flow_prediction, got 'x0'"):
        Schedule(torch.tensor([0.9, 0.1]), "x0")
    with pytest.raises(ValueError, match="between 0 and 1"):
        Schedule(torch.tensor([1.1, 0.1]))
    with pytest.raises(ValueError, match="got EDMEulerScheduler"):
        Schedule.of(EDMEulerScheduler())
    with pytest.raises(ValueError, match="zero terminal SNR"):
        Schedule(torch.tensor([0.9, 0.0]))


def test_zero_terminal_snr_is_fine_where_noise_is_not_predicted(batch):
    x0, noise, t = batch
    for prediction_type, expected in (("v_prediction", -x0), ("sample", x0)):
        schedule = Schedule.of(DDIMScheduler(**SETTINGS, rescale_betas_zero_snr=True, prediction_type=prediction_type))
        x_t = schedule.add_noise(x0, noise, t)
        assert torch.equal(x_t[-1], noise[-1])
        torch.testing.assert_close(schedule.target(x0, noise, t)[-1], expected[-1])
        torch.testing.assert_close(schedule.clean(x_t, schedule.target(x0, noise, t), t), x0, rtol=1e-4, atol=1e-4)


FLOWS = {
    "straight": FlowMatchEulerDiscreteScheduler(),
    "Stable Diffusion 3": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "FLUX": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    "Heun": FlowMatchHeunDiscreteScheduler(shift=2.0),
}


@pytest.fixture(params=FLOWS)
def flow(request):
    return FLOWS[request.param]


def test_flow_matching_has_the_noise_levels_of_diffusers(flow, batch):
    x0, noise, t = batch
    schedule = Schedule.of(flow)
    assert len(schedule) == 1000 and schedule.prediction_type == "flow_prediction"
    # diffusers counts from the noise.
    own = type(flow).from_config(flow.config)
    torch.testing.assert_close(schedule.sigma, own.sigmas.flip(0)[-1000:])
    torch.testing.assert_close(schedule.signal, 1 - schedule.sigma, rtol=1e-5, atol=1e-7)
    euler = FlowMatchEulerDiscreteScheduler.from_config(flow.config)
    at = euler.timesteps.flip(0)[t]
    torch.testing.assert_close(1000 * schedule.sigma[t], at)
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), euler.scale_noise(x0, at, noise))


def test_flow_sigmas_of_other_schedulers_are_those_of_flow_matching():
    unipc = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    torch.testing.assert_close(Schedule.of(unipc).sigma, Schedule.of(FLOWS["Stable Diffusion 3"]).sigma)


def test_an_euler_step_of_diffusers_leads_where_the_implied_sample_and_noise_say(flow, batch):
    x0, noise, _ = batch
    t, before = torch.full((5,), 600), torch.full((5,), 250)
    schedule, prediction = Schedule.of(flow), noise.roll(1, 0)
    own = FlowMatchEulerDiscreteScheduler()
    own.set_timesteps(sigmas=schedule.sigma[[600, 250]].tolist())
    x_t = schedule.add_noise(x0, noise, t)
    clean, seen = schedule.clean(x_t, prediction, t), schedule.noise(x_t, prediction, t)
    torch.testing.assert_close(
        schedule.add_noise(clean, seen, before), own.step(prediction, own.timesteps[0], x_t).prev_sample
    )


def test_a_perfect_velocity_gives_sample_and_noise_back(flow, batch):
    x0, noise, t = batch
    schedule = Schedule.of(flow)
    x_t, velocity = schedule.add_noise(x0, noise, t), noise - x0
    torch.testing.assert_close(schedule.target(x0, noise, t), velocity)
    torch.testing.assert_close(schedule.clean(x_t, velocity, t), x0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(schedule.noise(x_t, velocity, t), noise, rtol=1e-4, atol=1e-4)


def test_flow_matching_starts_from_noise_alone(batch):
    x0, noise, _ = batch
    schedule, last = Schedule.of(FLOWS["straight"]), torch.full((5,), 999)
    assert torch.equal(schedule.add_noise(x0, noise, last), noise)
    torch.testing.assert_close(schedule.clean(noise, noise - x0, last), x0)
    assert schedule.snr(last).tolist() == [0] * 5
