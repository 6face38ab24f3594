"""The objective on other models than Stable Diffusion 1.x: v-prediction, pixels, SDXL's UNet, flow matching."""

import copy

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)

import smoothnb as sn
from smoothnb.schedule import Schedule
from smoothnb.training.losses import base_loss
from smoothnb.training.regularizer import RunningConstant, objective_parts, unit_directions, variation

SD_SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
CONDITIONAL = dict(
    sample_size=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), layers_per_block=1,
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), block_out_channels=(16, 32), cross_attention_dim=16,
    norm_num_groups=8, use_linear_projection=True,
)  # fmt: skip


def stable_diffusion_2():
    """SD-2.1's settings: v-prediction, linear projections, heads of one width."""
    unet = UNet2DConditionModel(**CONDITIONAL, attention_head_dim=(2, 4), upcast_attention=True)
    words = torch.randn(1, 5, 16)
    schedule = Schedule.of(DDIMScheduler(**SD_SCHEDULE, prediction_type="v_prediction"))
    return unet, schedule, (4, 8, 8), lambda x, t: unet(x, t, words.expand(len(x), -1, -1)).sample


def pixels():
    """A UNet without text that works on pixels, with the linear schedule of DDPM."""
    unet = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    return unet, Schedule.of(DDIMScheduler(beta_schedule="linear")), (3, 16, 16), lambda x, t: unet(x, t).sample


def sdxl():
    """SDXL's UNet, which also takes a pooled embedding, and sizes and crop of the picture."""
    unet = UNet2DConditionModel(
        **CONDITIONAL, attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2), addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 16,
    )  # fmt: skip
    words, pooled = torch.randn(1, 5, 16), torch.randn(1, 16)
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]])

    def predict(x, t):
        more = {"text_embeds": pooled.expand(len(x), -1), "time_ids": sizes.expand(len(x), -1)}
        return unet(x, t, words.expand(len(x), -1, -1), added_cond_kwargs=more).sample

    return unet, Schedule.of(DDIMScheduler(**SD_SCHEDULE)), (4, 8, 8), predict


def stable_diffusion_3():
    """SD-3's transformer, which predicts a velocity and takes 1000 σ for t, and its shifted schedule."""
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=16, pooled_projection_dim=16,
        pos_embed_max_size=8,
    )  # fmt: skip
    words, pooled = torch.randn(1, 5, 16), torch.randn(1, 16)
    schedule = Schedule.of(FlowMatchEulerDiscreteScheduler(shift=3.0))

    def predict(x, t):
        texts = words.expand(len(x), -1, -1), pooled.expand(len(x), -1)
        return transformer(x, *texts, 1000 * schedule.sigma[t]).sample

    return transformer, schedule, (4, 8, 8), predict


def samples(shape, count, generator):
    """Smooth random fields: something to denoise that has a structure."""
    coarse = torch.randn(count, shape[0], 2, 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=True)


def regularizer_of(predict, schedule, shape):
    """L_reg on samples, noises and timesteps that are always the same, and the spread: its root as a share of a."""
    generator = torch.Generator().manual_seed(1)
    x0 = samples(shape, 64, generator)
    noise, delta = torch.randn(x0.shape, generator=generator), unit_directions(tuple(x0.shape), generator)
    lengths = variation(predict, schedule, x0, noise, torch.linspace(0, 999, 64).long(), delta).lengths
    return lengths.var().item(), (lengths.std() / lengths.mean()).item()


def steps(unet, schedule, shape, predict, weight, count, first=0):
    """Trains with the regularizer weighted so, on batches that are new and in every run the same."""
    optimizer, a = torch.optim.AdamW(unet.parameters(), lr=3e-3), RunningConstant()
    for step in range(first, first + count):
        generator = torch.Generator().manual_seed(100 + step)
        x0 = samples(shape, 16, generator)
        noise, delta = torch.randn(x0.shape, generator=generator), unit_directions(tuple(x0.shape), generator)
        timesteps = torch.randint(1000, (16,), generator=generator)
        problem = predict, schedule, x0, noise, timesteps
        parts = objective_parts(*problem, delta, a) if weight else [(base_loss(*problem), torch.zeros(16))]
        for base, regularizer in parts:
            (base.mean() + weight * regularizer.mean()).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("build", [stable_diffusion_2, pixels, sdxl, stable_diffusion_3])
def test_a_few_steps_lower_the_regularizer_of_any_diffusion_model(build):
    torch.manual_seed(0)
    unet, *problem = build()
    schedule, shape, predict = problem
    # A model that denoises a little; of random weights, any training lowers the regularizer.
    steps(unet, *problem, weight=0, count=100)
    start, before = copy.deepcopy(unet.state_dict()), regularizer_of(predict, schedule, shape)
    found = {}
    for weight in (0, 10):
        unet.load_state_dict(start)
        steps(unet, *problem, weight, count=40, first=200)
        found[weight] = regularizer_of(predict, schedule, shape)
    (absolute, spread), (control, control_spread) = found[10], found[0]
    assert absolute < 0.9 * before[0]
    assert absolute < 0.8 * control and spread < control_spread


def test_the_trainer_takes_a_pipeline_with_v_prediction(tiny_folder, tmp_path):
    pipe = sn.load_pipeline(tiny_folder, device="cpu")
    pipe.scheduler.register_to_config(prediction_type="v_prediction")
    pipe.save_pretrained(tmp_path / "v")
    shown = []
    config = sn.TrainConfig(str(tmp_path / "v"), tmp_path / "lora", steps=3, batch_size=2, learning_rate=1e-2, rank=2)
    sn.train(config, on_step=shown.append)
    assert len(shown) == 3 and all(progress.regularizer > 0 for progress in shown)
    assert sn.load_pipeline(tmp_path / "v", device="cpu", smooth=tmp_path / "lora").unet.peft_config
