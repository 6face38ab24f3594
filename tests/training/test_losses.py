"""The objective: closed forms on linear models, and the two ways to the regularizer's gradient against each other."""

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel
from torch import nn

from smoothnb.latents import encode
from smoothnb.models.load import load_pipeline
from smoothnb.models.lora import add_lora
from smoothnb.schedule import Schedule
from smoothnb.training import losses
from smoothnb.training.datasets import PostcardStream
from smoothnb.training.losses import base_loss
from smoothnb.training.regularizer import (
    POINTS,
    RunningConstant,
    objective_parts,
    unit_directions,
    variation_regularizer,
)

SETTINGS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
SCHEDULE = Schedule.of(DDIMScheduler(**SETTINGS))
SCHEDULES = {
    **{name: Schedule(SCHEDULE.alpha_bar, name) for name in ("epsilon", "v_prediction", "sample")},
    "flow_prediction": Schedule.of(FlowMatchEulerDiscreteScheduler(shift=3.0)),
}
TIMESTEPS = torch.tensor([30, 400, 800, 990])


def draw(shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g), torch.randn(shape, generator=g), unit_directions(shape, g)


class Linear(nn.Module):
    """ε_θ(x_t, t) = x_t W: everything about it is known."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(5)) / size)

    def forward(self, x_t, t):
        return (x_t.flatten(1) @ self.weight).view_as(x_t)


def lengths_by_hand(model: Linear, schedule: Schedule, delta: torch.Tensor) -> torch.Tensor:
    """σ ‖J_εᵀ Δ‖ of a linear model, for what it predicts."""
    result = []
    for y, t in zip(delta.flatten(1), TIMESTEPS, strict=True):
        one, weight = torch.eye(len(y)), model.weight.T
        signal, sigma = schedule.signal[t], schedule.sigma[t]
        jacobian = {
            "epsilon": sigma / signal * (one - sigma * weight),
            "v_prediction": sigma * (signal * one - sigma * weight),
            "sample": sigma * weight,
            "flow_prediction": sigma * (one - sigma * weight),
        }[schedule.prediction_type]
        result.append(sigma * (jacobian.T @ y).norm())
    return torch.stack(result)


@pytest.mark.parametrize("prediction_type", SCHEDULES)
@pytest.mark.parametrize("method", ["exact", "finite_difference"])
def test_the_regularizer_of_a_linear_model_is_known_in_closed_form(method, prediction_type):
    x0, noise, delta = draw((4, 2, 3, 3))
    model, a, schedule = Linear(18), RunningConstant(), SCHEDULES[prediction_type]
    loss = variation_regularizer(model, schedule, x0, noise, TIMESTEPS, delta, a, method)
    expected = lengths_by_hand(model, schedule, delta)
    assert a.value == pytest.approx(expected.mean().item(), rel=1e-5)
    torch.testing.assert_close(loss, (expected - a.value).square(), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(loss.sum(), model.weight)
    (by_hand,) = torch.autograd.grad((lengths_by_hand(model, schedule, delta) - a.value).square().sum(), model.weight)
    torch.testing.assert_close(gradient, by_hand, rtol=2e-3, atol=2e-3 * by_hand.abs().max().item())


def pixel_model():
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8, attention_head_dim=8,
    )  # fmt: skip


def gradients(model, loss):
    weights = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("prediction_type", SCHEDULES)
def test_a_pixel_space_unet_has_the_same_gradient_either_way(prediction_type):
    model = pixel_model()
    schedule = SCHEDULES[prediction_type]
    x0, noise, delta = draw((4, 3, 16, 16))
    found = []
    for method in ("exact", "finite_difference"):
        a = RunningConstant()
        a.load_state_dict({"values": [0.5]})
        loss = variation_regularizer(
            lambda x, t: model(x, t).sample, schedule, x0, noise, TIMESTEPS, delta, a, method
        ).mean()
        found.append(gradients(model, loss))
    exact, ours = found
    assert torch.cosine_similarity(exact, ours, dim=0) >= 0.9999
    assert (ours.norm() / exact.norm()).item() == pytest.approx(1, abs=0.01)


def test_gradient_checkpointing_changes_no_gradient():
    model, (x0, noise, delta) = pixel_model().train(), draw((4, 3, 16, 16))

    def gradient():
        loss = variation_regularizer(
            lambda x, t: model(x, t).sample, SCHEDULE, x0, noise, TIMESTEPS, delta, RunningConstant()
        )
        return gradients(model, loss.mean())

    plain = gradient()
    model.enable_gradient_checkpointing()
    torch.testing.assert_close(gradient(), plain)


@pytest.mark.parametrize(("dtype", "cosine"), [(torch.float32, 0.9999), (torch.float16, 0.99), (torch.bfloat16, 0.97)])
def test_the_postcard_lora_has_the_exact_gradient(dtype, cosine):
    pipe = load_pipeline("postcard", device="cpu")
    torch.manual_seed(0)
    pipe.unet.requires_grad_(False)
    add_lora(pipe.unet, 8)
    for name, p in pipe.unet.named_parameters():
        if "lora_B" in name:  # starts at zero, where lora_A has no gradient
            p.data.normal_(0, 0.02)
    pixels, captions = PostcardStream(128, 128).take(range(4))
    x0, (_, noise, delta) = encode(pipe, pixels), draw((4, 4, 16, 16))
    embeds = pipe.encode_prompt(captions, "cpu", 1, False)[0]

    def gradient(method, dtype, points=(0.0, 0.0)):
        def predict(x_t, t):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                return pipe.unet(x_t, t, encoder_hidden_states=embeds).sample

        loss = variation_regularizer(predict, SCHEDULE, x0, noise, TIMESTEPS, delta, RunningConstant(), method, points)
        return gradients(pipe.unet, loss.mean())

    exact, ours = gradient("exact", torch.float32), gradient("finite_difference", dtype, POINTS[dtype])
    assert torch.cosine_similarity(exact, ours, dim=0) >= cosine
    if dtype == torch.float32:
        assert (ours.norm() / exact.norm()).item() == pytest.approx(1, abs=0.01)


def test_the_parts_add_up_to_both_losses_and_their_gradients():
    x0, noise, delta = draw((4, 2, 3, 3))
    model, (a, b) = Linear(18), (RunningConstant(), RunningConstant())
    parts = list(objective_parts(model, SCHEDULE, x0, noise, TIMESTEPS, delta, a))
    base, regularizer = (torch.stack(x).sum(0) for x in zip(*parts, strict=True))
    torch.testing.assert_close(base, base_loss(model, SCHEDULE, x0, noise, TIMESTEPS), rtol=1e-2, atol=1e-3)
    expected = variation_regularizer(model, SCHEDULE, x0, noise, TIMESTEPS, delta, b)
    torch.testing.assert_close(regularizer, expected)
    torch.testing.assert_close(gradients(model, regularizer.sum()), gradients(model, expected.sum()))


@pytest.mark.parametrize("prediction_type", SCHEDULES)
def test_base_loss_counts_errors_and_min_snr_weights_them_as_errors_of_the_clean_sample(prediction_type):
    schedule = SCHEDULES[prediction_type]
    x0, noise, _ = draw((4, 2, 3, 3))

    def wrong_by_half(x_t, t):
        return schedule.target(x0, noise, t) + 0.5

    loss = base_loss(wrong_by_half, schedule, x0, noise, TIMESTEPS)
    torch.testing.assert_close(loss, torch.full((4,), 0.25))
    weighted = base_loss(wrong_by_half, schedule, x0, noise, TIMESTEPS, min_snr_gamma=5.0)
    x_t = schedule.add_noise(x0, noise, TIMESTEPS)
    error = (schedule.clean(x_t, wrong_by_half(x_t, TIMESTEPS), TIMESTEPS) - x0).square().flatten(1).mean(1)
    torch.testing.assert_close(weighted, error * schedule.snr(TIMESTEPS).clamp(max=5), rtol=1e-3, atol=1e-5)


def test_offset_noise_moves_whole_channels():
    g = torch.Generator().manual_seed(0)
    plain, moved = (losses.offset_noise((200, 4, 16, 16), offset, g) for offset in (0.0, 0.5))
    assert plain.mean((2, 3)).std().item() == pytest.approx(1 / 16, rel=0.1)
    assert moved.mean((2, 3)).std().item() == pytest.approx((0.25 + 1 / 256) ** 0.5, rel=0.1)


def test_prompts_are_dropped_whole_and_as_often_as_asked():
    embeds, empty = torch.ones(2000, 3, 2), torch.zeros(1, 3, 2)
    dropped = losses.drop_prompts(embeds, empty, 0.1, torch.Generator().manual_seed(0))
    share = (dropped == 0).all((1, 2)).float().mean().item()
    assert share == pytest.approx(0.1, abs=0.03)
    assert set(dropped.mean((1, 2)).tolist()) == {0.0, 1.0}


def test_a_starts_at_the_first_batch_follows_slowly_and_is_restored():
    a = RunningConstant(weight=0.01)
    assert a.update(torch.tensor([1.0, 3.0])).tolist() == [2.0, 2.0]
    assert a.update(torch.tensor([12.0])).item() == pytest.approx(2.1)
    again = RunningConstant()
    again.load_state_dict(a.state_dict())
    assert again.value == a.value


def test_each_range_of_t_has_an_a_of_its_own():
    a = RunningConstant(weight=0.5, ranges=4)
    times = torch.tensor([0.0, 0.2, 0.999])
    assert a.update(torch.tensor([1.0, 3.0, 8.0]), times).tolist() == [2.0, 2.0, 8.0]
    assert a.update(torch.tensor([6.0]), torch.tensor([0.75])).item() == 7.0
    assert a.values.isnan().tolist() == [False, True, True, False] and a.value == 4.5
    with pytest.raises(ValueError, match="at least one range"):
        RunningConstant(ranges=0)


@pytest.mark.parametrize("method", ["exact", "finite_difference"])
def test_the_relative_regularizer_is_known_in_closed_form(method):
    x0, noise, delta = draw((4, 2, 3, 3))
    model, a = Linear(18), RunningConstant(ranges=2, relative=True)
    loss = variation_regularizer(model, SCHEDULE, x0, noise, TIMESTEPS, delta, a, method)
    lengths = lengths_by_hand(model, SCHEDULE, delta)
    late = TIMESTEPS >= 500
    own = torch.where(late, lengths[late].mean(), lengths[~late].mean()).detach()
    expected = (lengths / own - 1).square()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(loss.sum(), model.weight)
    (by_hand,) = torch.autograd.grad(expected.sum(), model.weight)
    torch.testing.assert_close(gradient, by_hand, rtol=2e-3, atol=2e-3 * by_hand.abs().max().item())


def test_an_unknown_method_is_named():
    x0, noise, delta = draw((4, 2, 3, 3))
    with pytest.raises(Exception, match="jvp"):
        variation_regularizer(Linear(18), SCHEDULE, x0, noise, TIMESTEPS, delta, RunningConstant(), "jvp")
