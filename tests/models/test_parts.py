"""Pipelines as users make them: with other schedulers, compiled, offloaded, with other parts, in other precisions."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook, dispatch_model
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from PIL import Image
from tiny import build_tiny_pipeline, with_lora

import smoothnb as sn
from smoothnb.cli import main
from smoothnb.inversion.inversion import Inversion
from smoothnb.models.load import fingerprint
from smoothnb.sampling import scheduler_for
from smoothnb.training import TrainConfig

PROMPT, TARGET = "a red house in a meadow", "a blue house in a meadow"
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
ZERO_SNR = dict(**SD, prediction_type="v_prediction", rescale_betas_zero_snr=True)
PICTURE = Image.fromarray(np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8))


@pytest.fixture
def pipe():
    return build_tiny_pipeline()


@pytest.fixture(scope="module")
def plain():
    """As `pipe`; tests share it and leave it as it is."""
    return build_tiny_pipeline()


def drawn(pipe, **more):
    (picture,) = sn.generate(pipe, PROMPT, 1, num_inference_steps=3, progress=False, **more)
    return np.asarray(picture).astype(int)


def inverted(pipe, steps=4, **more):
    return sn.ddim_invert(pipe, PICTURE, PROMPT, steps, progress=False, **more)


def dragged(pipe, **options):
    options = sn.DragOptions(num_inference_steps=4, max_steps=2, **options)
    return sn.drag(pipe, PICTURE, PROMPT, [(20, 20)], [(40, 20)], options=options, progress=False)


def jobs(pipe, inversion):
    """Pictures and latents of all that is done with a pipeline."""
    edited = sn.edit_text(pipe, inversion, TARGET, method="attention", blend="house")
    series = sn.null_text_invert(pipe, PICTURE, PROMPT, 3.0, 3, inner_steps=2, progress=False)
    return {
        "generate": drawn(pipe), "ddim_invert": inverted(pipe).trajectory.cpu(), "null_text": series.series.cpu(),
        "reconstruct": np.asarray(sn.reconstruct(pipe, inversion, progress=False)[0]),
        "edit": np.asarray(sn.finish(pipe, edited, progress=False)[0]),
        "word_map": np.asarray(sn.word_map(pipe, inversion, "house")[0]),
        "point_map": sn.point_map(pipe, inversion, (20, 20)),
        "drag": np.asarray(dragged(pipe).picture),
    }  # fmt: skip


@pytest.fixture(scope="module")
def expected(plain):
    inversion = inverted(plain)
    return inversion, jobs(plain, inversion)


def assert_same(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(np.asarray(found[name], float), np.asarray(value, float), 1e-3, 1e-3, err_msg=name)


# Schedulers


SCHEDULERS = {
    "Euler, Karras": (EulerDiscreteScheduler, dict(**SD, use_karras_sigmas=True)),
    "Euler ancestral": (EulerAncestralDiscreteScheduler, dict(**SD)),
    "DPM++ SDE": (DPMSolverMultistepScheduler, dict(**SD, algorithm_type="sde-dpmsolver++")),
    "PNDM": (PNDMScheduler, dict(**SD, skip_prk_steps=True)),
    "LCM": (LCMScheduler, dict()),
    "UniPC": (UniPCMultistepScheduler, dict(**SD)),
    "DDPM": (DDPMScheduler, dict(**SD, clip_sample=True)),
    "linspace": (DDIMScheduler, dict(**SD, timestep_spacing="linspace", steps_offset=0, thresholding=True)),
}


def made(schedulers, name):
    kind, settings = schedulers[name]
    return kind(**settings)


def state(scheduler):
    return {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in vars(scheduler).items()}


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers
@pytest.mark.parametrize("name", SCHEDULERS)
def test_whatever_scheduler_a_pipeline_has_the_same_seed_gives_the_same(plain, expected, name):
    pipe = copy.copy(plain)
    pipe.scheduler = made(SCHEDULERS, name)
    # Used before, as by a call of the pipeline's own.
    pipe.scheduler.set_timesteps(7)
    own, before = pipe.scheduler, state(pipe.scheduler)
    inversion, wanted = expected
    np.testing.assert_array_equal(drawn(pipe), wanted["generate"])
    assert torch.equal(inverted(pipe).trajectory, inversion.trajectory)
    if name in ("Euler, Karras", "linspace"):
        assert_same(jobs(pipe, inversion), wanted)
        assert sn.istd(pipe, PROMPT, 3, num_inference_steps=2, progress=False).settings.scheduler == "DDIMScheduler"
    assert pipe.scheduler is own and state(own) == before


NOISE_SCHEDULES = {
    "linear": (DDPMScheduler, dict()),
    "cosine": (EulerDiscreteScheduler, dict(beta_schedule="squaredcos_cap_v2")),
    "sigmoid": (DDPMScheduler, dict(beta_schedule="sigmoid")),
    "exponential": (HeunDiscreteScheduler, dict(beta_schedule="exp")),
    "trained betas": (DDPMScheduler, dict(trained_betas=np.linspace(0.001, 0.02, 500).tolist())),
    "v": (EulerDiscreteScheduler, dict(**SD, prediction_type="v_prediction")),
    "sample": (DDIMScheduler, dict(**SD, prediction_type="sample")),
    "v, zero terminal SNR": (DDIMScheduler, dict(**ZERO_SNR, timestep_spacing="trailing")),
    "Euler, v, zero terminal SNR": (EulerDiscreteScheduler, ZERO_SNR),
}


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers
@pytest.mark.parametrize("name", NOISE_SCHEDULES)
def test_every_noise_schedule_and_prediction_is_kept_and_inverted(pipe, name):
    steps, kind = 15, made(NOISE_SCHEDULES, name).config.prediction_type
    pipe.scheduler = made(NOISE_SCHEDULES, name)
    ddim = scheduler_for(pipe, steps)
    torch.testing.assert_close(ddim.alphas_cumprod, pipe.scheduler.alphas_cumprod)
    assert ddim.config.prediction_type == pipe.scheduler.config.prediction_type
    # Its own settings make the same again, as a folder that it is saved in does.
    again = DDIMScheduler.from_config(ddim.config)
    torch.testing.assert_close(again.alphas_cumprod, ddim.alphas_cumprod, rtol=1e-4, atol=1e-6)
    gaps = ddim.timesteps[:-1] - ddim.timesteps[1:]
    assert (gaps == len(ddim.alphas_cumprod) // steps).all() and ddim.timesteps[-1] == 1
    # A model that answers the same to every x is inverted exactly where it predicts noise.
    pipe.unet.conv_in.weight.data.zero_()
    inversion = inverted(pipe, steps, fixed_point_steps=0 if kind == "epsilon" else 30)
    *_, last = sn.sample(pipe, PROMPT, inversion.latents, 0, steps, 1)
    torch.testing.assert_close(last.latents, inversion.trajectory[0], rtol=1e-2, atol=1e-2)


def test_as_many_steps_as_the_model_was_trained_with_can_be_taken(plain):
    assert scheduler_for(plain, 1000).timesteps.tolist() == [*range(999, -1, -1)]
    assert scheduler_for(plain, 999).timesteps.tolist() == [*range(999, 0, -1)]


FLOWS = {
    "FlowMatchEuler": (FlowMatchEulerDiscreteScheduler, dict()),
    "UniPC on flows": (UniPCMultistepScheduler, dict(use_flow_sigmas=True, prediction_type="flow_prediction")),
    "EDM": (EDMEulerScheduler, dict()),
}


@pytest.mark.parametrize("name", FLOWS)
def test_schedulers_without_noise_levels_are_refused_by_name(plain, expected, tmp_path, name):
    pipe = copy.copy(plain)
    pipe.scheduler = made(FLOWS, name)
    message = (
        f"got a StableDiffusionPipeline with {type(pipe.scheduler).__name__}: flow-matching models can only be trained"
    )
    for job in (
        lambda: sn.sample(pipe, PROMPT), lambda: inverted(pipe), lambda: sn.null_text_invert(pipe, PICTURE, PROMPT),
        lambda: sn.edit_text(pipe, expected[0], TARGET), lambda: dragged(pipe), lambda: sn.interpolate(pipe, 1, 2),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            job()
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        sn.load_pipeline(tmp_path)


# Parts


def test_a_tiny_autoencoder_takes_the_place_of_the_other(pipe):
    torch.manual_seed(0)
    channels = (8,) * 4
    pipe.vae = AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    pixels = torch.tensor(np.asarray(PICTURE)).permute(2, 0, 1)[None] / 127.5 - 1
    torch.testing.assert_close(sn.encode(pipe, PICTURE), pipe.vae.encode(pixels)[0])
    found = jobs(pipe, inverted(pipe))
    assert all(np.isfinite(np.asarray(value)).all() for value in found.values())
    half = copy.deepcopy(pipe).to(torch.float16)
    assert sn.encode(half, PICTURE).dtype == torch.float16


OTHERS = {
    "inpainting": (dict(in_channels=9), "an inpainting one: its UNet takes 9 channels and gives 4"),
    "instruct-pix2pix": (dict(in_channels=8), "an instruct-pix2pix one"),
    "depth": (dict(in_channels=5), "a depth-to-image one"),
    "learned variance": (dict(out_channels=8), "takes 4 channels and gives 8"),
    "classes": (dict(num_class_embeds=10), "num_class_embeds=10"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_unets_are_refused_by_name(pipe, tmp_path, name):
    changes, message = OTHERS[name]
    own = {name: value for name, value in pipe.unet.config.items() if not name.startswith("_")}
    pipe.unet = UNet2DConditionModel(**own | changes)
    for job in (lambda: sn.sample(pipe, PROMPT), lambda: inverted(pipe), lambda: dragged(pipe)):
        with pytest.raises(ValueError, match=message):
            job()
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message) as said:
        sn.load_pipeline(tmp_path)
    assert str(tmp_path) in str(said.value)


@pytest.mark.parametrize(("variant", "shards"), [("fp16", None), ("fp16", "20KB"), ("bf16", "20KB")])
@pytest.mark.filterwarnings("ignore")  # of diffusers, about saving in shards
def test_weights_may_be_there_as_one_variant_alone(plain, tmp_path, variant, shards):
    plain.save_pretrained(tmp_path, variant=variant, max_shard_size=shards)
    assert fingerprint(sn.load_pipeline(tmp_path, "cpu")) == fingerprint(plain)
    shutil.rmtree(tmp_path / "vae")
    plain.vae.save_pretrained(tmp_path / "vae")
    assert fingerprint(sn.load_pipeline(tmp_path, "cpu")) == fingerprint(plain)
    other = copy.deepcopy(plain)
    other.unet.conv_in.weight.data += 1
    other.save_pretrained(tmp_path)
    assert fingerprint(sn.load_pipeline(tmp_path, "cpu")) == fingerprint(other), "whole weights come first"


OFFLOADS = {
    "part by part": lambda model: cpu_offload(model, torch.device("cpu")),
    "model by model": lambda model: cpu_offload_with_hook(model, torch.device("cpu")),
    "device map": lambda model: dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True),
}


@pytest.mark.parametrize("name", OFFLOADS)
def test_parts_that_accelerate_offloads_work_as_they_do_in_place(pipe, plain, expected, name):
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        OFFLOADS[name](part)
    inversion, wanted = expected
    assert fingerprint(pipe) == fingerprint(plain)
    assert_same(jobs(pipe, inversion), wanted)


def test_offloaded_weights_get_no_lora_and_keep_the_one_they_have(pipe, plain):
    lora = sn.lora_of(with_lora(pipe))
    cpu_offload(pipe.unet, torch.device("cpu"))
    before, full, again = fingerprint(pipe), drawn(pipe), sn.lora_of(pipe)
    assert again.pairs.keys() == lora.pairs.keys()
    assert all(torch.equal(pair.up, lora.pairs[name].up) for name, pair in again.pairs.items())
    sn.set_smoothness(pipe, 0)
    np.testing.assert_array_equal(drawn(pipe), drawn(plain))
    sn.set_smoothness(pipe, 1)
    np.testing.assert_array_equal(drawn(pipe), full)
    with pytest.raises(ValueError, match="cannot train a LoRA while accelerate offloads"):
        dragged(pipe, lora_steps=1)
    other = build_tiny_pipeline()
    cpu_offload(other.unet, torch.device("cpu"))
    with pytest.raises(ValueError, match="cannot attach a LoRA while accelerate offloads"):
        sn.import_lora(other, lora)
    assert fingerprint(pipe) == before
    np.testing.assert_array_equal(drawn(other), drawn(plain))


@pytest.mark.filterwarnings("ignore")  # of dynamo, about what it traces
def test_a_compiled_unet_does_what_the_one_inside_does(pipe, plain, expected, tmp_path):
    inversion, wanted = expected
    compiled = pipe.unet = torch.compile(pipe.unet, backend="eager")
    assert fingerprint(pipe) == fingerprint(plain)
    assert_same(jobs(pipe, inversion), wanted)
    smooth = with_lora(build_tiny_pipeline())
    sn.import_lora(pipe, sn.lora_of(smooth))
    assert pipe.unet is compiled
    np.testing.assert_array_equal(drawn(pipe), drawn(smooth))
    assert fingerprint(pipe) == fingerprint(smooth)
    sn.export_lora(sn.lora_of(pipe), tmp_path / "lora.safetensors")
    sn.set_smoothness(pipe, 0)
    np.testing.assert_array_equal(drawn(pipe), wanted["generate"])
    with pytest.raises(ValueError, match="smoothness of at least 0"):
        sn.set_smoothness(pipe, -1)
    assert pipe.unet is compiled


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_other_compiled_parts_and_blocks_change_nothing(pipe, plain, part):
    setattr(pipe, part, torch.compile(getattr(pipe, part), backend="eager"))
    pipe.unet.mid_block = torch.compile(pipe.unet.mid_block, backend="eager")
    assert fingerprint(pipe) == fingerprint(plain)
    np.testing.assert_array_equal(drawn(pipe), drawn(plain))


# Paths and numbers


def test_tilde_is_the_home_folder_wherever_a_path_is_given(pipe, tmp_path, monkeypatch):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    inverted(pipe, cache="~/cache").save("~/inv.safetensors")
    assert len(Inversion.load("~/inv.safetensors", pipe)) == 1
    sn.null_text_invert(pipe, PICTURE, PROMPT, 3.0, 2, inner_steps=1, cache="~/cache", progress=False)
    pipe.save_pretrained(home / "model")
    assert fingerprint(sn.load_pipeline("~/model", "cpu")) == fingerprint(pipe)
    written = sn.export_lora(sn.lora_of(with_lora(pipe)), "~/loras/smooth.safetensors")
    assert written == home / "loras/smooth.safetensors"
    assert sn.import_lora(build_tiny_pipeline(), "~/loras/smooth.safetensors").pairs
    frames = [PICTURE] * 3
    assert sn.MixingSlider(frames).save("~/path.gif") == home / "path.gif"
    assert sn.MixingSlider(frames).save("~/film/path.mp4") == home / "film/path.mp4"
    result = sn.istd(pipe, ["a house"], 3, num_inference_steps=2, results="~/istd.jsonl", progress=False)
    assert result.save("~/again.jsonl") == home / "again.jsonl"
    assert sn.ISTD.load("~/again.jsonl").prompts == ("a house",)
    PICTURE.save(home / "house.png")
    assert sn.encode(pipe, "~/house.png").shape == (1, 4, 8, 8)
    assert TrainConfig(output_dir=Path("~/run")).output_dir == home / "run"
    (home / "prompts.txt").write_text("a house")
    assert sn.read_prompts("~/prompts.txt") == ["a house"]
    main(["edit", "--picture=~/house.png", "--output=~/out/edited.png", "--model=~/model", "--prompt", PROMPT,
          "--target", TARGET, "--steps", "2"])  # fmt: skip
    assert (home / "out/edited.png").is_file() and not list(work.iterdir())


@pytest.mark.parametrize("made", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("used", [torch.float32, torch.float16, torch.bfloat16])
def test_an_inversion_serves_every_precision_of_its_model(plain, made, used):
    inversion = inverted(copy.deepcopy(plain).to(made), 2)
    pipe = copy.deepcopy(plain).to(used)
    assert len(sn.reconstruct(pipe, inversion, progress=False)) == 1
    assert len(list(sn.interpolate(pipe, inversion, 2, 2))) == 2
    edited = sn.finish(pipe, sn.edit_text(pipe, inversion, TARGET, method="attention"), progress=False)
    assert edited[0].size == (64, 64)
    # In the same precision, smaller changes are noticed.
    weight = pipe.unet.conv_in.weight.data
    weight.mul_(1.01) if made == used else weight.add_(0.1)
    with pytest.raises(ValueError, match="belongs to another model"):
        inversion.check(pipe)


def test_an_inversion_of_before_there_was_a_precision_is_still_read(plain, tmp_path):
    found = inverted(plain, 2)
    settings = copy.copy(found.settings)
    object.__setattr__(settings, "signs", None)
    object.__setattr__(settings, "dtype", None)
    Inversion(found.trajectory, None, settings).save(tmp_path / "old.safetensors")
    old = Inversion.load(tmp_path / "old.safetensors", plain)
    with pytest.raises(ValueError, match="belongs to another model"):
        old.check(copy.deepcopy(plain).to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_nothing(plain, expected, tmp_path, request, dtype):
    def computed():
        return [
            sn.seeded_noise(plain, [5, 6]), sn.Schedule.of(plain.scheduler).sigma,
            sn.unit_directions((2, 3), torch.Generator().manual_seed(0)),
            sn.istd(plain, PROMPT, 3, num_inference_steps=2, progress=False).distances,
            torch.tensor(np.asarray(dragged(plain, lora_steps=2).picture)),
        ]  # fmt: skip

    before = computed()
    plain.save_pretrained(tmp_path)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(dtype)
    assert all(map(torch.equal, computed(), before))
    assert_same(jobs(plain, expected[0]), expected[1])
    assert sn.mix(before[0], [1, 2]).dtype == sn.slerp(*before[0], 0.5).dtype == torch.float32
    loaded = sn.load_pipeline(tmp_path, "cpu")
    assert loaded.unet.dtype == torch.float32
    np.testing.assert_array_equal(drawn(loaded), expected[1]["generate"])
