"""Public functions on a device that is not the CPU, with inputs from either side, and in half precision."""

import dataclasses
import functools
import inspect
import json
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import build_tiny_pipeline, with_lora

import smoothnb as sn
from smoothnb.models.lora_files import Lora

PROMPT, TARGET = "a red house in a meadow", "a blue house in a meadow"
STEPS = dict(num_inference_steps=3)
QUIET = dict(progress=False, **STEPS)
NEAR = dict(handles=[(20, 30)], targets=[(40, 30)])
# Supervision while sampling turns the least rounding into another picture, on random weights.
DRAG = sn.DragOptions(num_inference_steps=4, max_steps=1, follow=0.0)


def picture(seed: int, size: int = 64) -> Image.Image:
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


ONE, TWO = picture(0), picture(1)


@pytest.fixture(scope="module")
def cpu_pipe():
    return with_lora(build_tiny_pipeline())


@pytest.fixture(scope="module")
def gpu_pipe(gpu):
    return with_lora(build_tiny_pipeline()).to(gpu)


def problem(pipe):
    """A model, its schedule, and a batch for the training objective, timesteps on the CPU."""
    embeds = pipe.encode_prompt(PROMPT, pipe.device, 1, False)[0].detach()
    x0, noise = sn.encode(pipe, [ONE, TWO]), sn.seeded_noise(pipe, [0, 1])

    def predict(x_t, t):
        assert t.device == x_t.device
        return pipe.unet(x_t, t, encoder_hidden_states=embeds.expand(len(x_t), -1, -1)).sample

    return predict, sn.Schedule.of(pipe.scheduler), x0, noise, torch.tensor([100, 600])


def regularizer(pipe, method):
    batch = problem(pipe)
    delta = sn.unit_directions(batch[2].shape, torch.Generator().manual_seed(0)).to(batch[2])
    return sn.variation_regularizer(*batch, delta, sn.RunningConstant(), method)


def null_text(pipe, images, **options):
    return sn.null_text_invert(pipe, images, PROMPT, inner_steps=2, **QUIET, **options)


def edit(pipe, **options):
    inversion = sn.ddim_invert(pipe, ONE, PROMPT, **QUIET)
    return sn.finish(pipe, sn.edit_text(pipe, inversion, TARGET, **options), progress=False)


def dragged(pipe, **options):
    found = sn.drag(pipe, ONE, PROMPT, **NEAR, options=DRAG, progress=False, **options)
    return [found.picture, *found.frames, found.paths]


def typed(pipe):
    """What an `EditSlider` shows once another prompt is typed."""

    def invert(pipe, picture, prompt):
        return sn.ddim_invert(pipe, picture, prompt, **QUIET)

    slider = sn.EditSlider(pipe, ONE, PROMPT, TARGET, invert=invert, switches=(0.0, 0.8))
    slider.wait().target.value = "a white house in a meadow"
    return slider.wait().slider.frames["edit"]


def pulled(pipe):
    """What a `DragEditor` draws for an arrow that is drawn on it."""
    editor = sn.DragEditor(pipe, ONE, PROMPT, options=DRAG, frames=2)
    editor.canvas.arrows = [[20, 30, 40, 30]]
    return editor.drag().wait().result.frames


def walked(pipe):
    order = sn.coarse_to_fine(3)
    slider = sn.MixingSlider(sn.interpolate(pipe, 0, 1, order, PROMPT, batch_size=1, **STEPS), order)
    slider.wait().value = 0.5
    return slider.frames


def compared(pipe):
    found = sn.compare({"base": (pipe, 0), "smooth": pipe}, [PROMPT], num_ratios=3, **QUIET)
    return found.change("smooth")[0]


def distances(a, b):
    return (a - b).square().flatten(1).sum(1)


FUNCTIONS = {
    "encode": lambda pipe: sn.encode(pipe, [ONE, TWO]),
    "decode": lambda pipe: sn.decode(pipe, sn.encode(pipe, ONE)),
    "seeded_noise": lambda pipe: sn.seeded_noise(pipe, [0, 1]),
    "slerp": lambda pipe: sn.slerp(*sn.seeded_noise(pipe, [0, 1]), [0.0, 0.3, 1.0]),
    "mix": lambda pipe: sn.mix(sn.seeded_noise(pipe, [0, 1, 2]), [[1, 1, 1], [0, 1, 2]]),
    "sample": lambda pipe: [step.x0 for step in sn.sample(pipe, PROMPT, seed=[0, 1], **STEPS)],
    "generate": lambda pipe: sn.generate(pipe, [PROMPT, TARGET], seeds=[0, 1], **QUIET),
    "interpolate": lambda pipe: list(sn.interpolate(pipe, 0, 1, 3, PROMPT, TARGET, **STEPS)),
    "ddim_invert": lambda pipe: sn.ddim_invert(pipe, ONE, PROMPT, fixed_point_steps=1, **QUIET).trajectory,
    "null_text_invert": lambda pipe: null_text(pipe, ONE).series,
    "null_text_invert, two pictures": lambda pipe: null_text(pipe, [ONE, TWO]).series,
    "null_text_invert, a series each": lambda pipe: null_text(pipe, [ONE, TWO], shared=False).series,
    "reconstruct": lambda pipe: sn.reconstruct(pipe, null_text(pipe, [ONE, TWO]), progress=False),
    "edit_text": lambda pipe: edit(pipe),
    "edit_text, attention": lambda pipe: edit(pipe, method="attention", blend="red house", weights={"blue": 2.0}),
    "edit_text, sdedit": lambda pipe: edit(pipe, method="sdedit"),
    "word_map": lambda pipe: sn.word_map(pipe, sn.ddim_invert(pipe, ONE, PROMPT, **QUIET), "house", every=1),
    "point_map": lambda pipe: sn.point_map(pipe, sn.ddim_invert(pipe, ONE, PROMPT, **QUIET), (20, 30)),
    "drag": lambda pipe: dragged(pipe, frames=2, mask=Image.new("L", (64, 64), 255)),
    "istd": lambda pipe: sn.istd(pipe, PROMPT, 3, **QUIET).distances,
    "compare": compared,
    "path_lengths": lambda pipe: sn.path_lengths(pipe, [PROMPT], distances, 0.1, **QUIET),
    "base_loss": lambda pipe: sn.base_loss(*problem(pipe), min_snr_gamma=5.0),
    "variation_regularizer": lambda pipe: regularizer(pipe, "finite_difference"),
    "variation_regularizer, exact": lambda pipe: regularizer(pipe, "exact"),
    "EditSlider": typed,
    "DragEditor": pulled,
    "MixingSlider": walked,
}  # fmt: skip
"""From a pipeline to what a function gives: tensors, pictures or numbers."""


def numbers(found: object) -> np.ndarray:
    if isinstance(found, list | tuple):
        return np.concatenate([numbers(one).ravel() for one in found])
    if isinstance(found, dict):
        return numbers(list(found.values()))
    return np.asarray(found.detach().float().cpu() if isinstance(found, torch.Tensor) else found, dtype=np.float64)


def same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether two results agree but for rounding."""
    return a.shape == b.shape and np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_device_changes_no_result(name, cpu_pipe, gpu_pipe):
    function = FUNCTIONS[name]
    # An optimization makes more of a difference in rounding.
    tolerance = 0.1 if name.startswith(("null_text", "reconstruct")) else 0.01
    assert same(numbers(function(gpu_pipe)), numbers(function(cpu_pipe)), tolerance)


def test_latents_embeddings_and_inversions_may_come_from_the_other_device(cpu_pipe, gpu_pipe):
    for own, other in ((cpu_pipe, gpu_pipe), (gpu_pipe, cpu_pipe)):
        latents, embeds = sn.seeded_noise(other, 1), other.encode_prompt(PROMPT, other.device, 1, False)[0]
        drawn = sn.generate(own, embeds, latents=latents, **QUIET)
        assert same(numbers(drawn), numbers(sn.generate(own, PROMPT, 1, **QUIET)), 0.01)
        inversion = null_text(other, ONE)
        assert len(sn.reconstruct(own, inversion, progress=False)) == 1
        assert len(list(sn.interpolate(own, inversion, sn.seeded_noise(own, 2), 3))) == 3
        (_,) = sn.finish(own, sn.edit_text(own, inversion, TARGET), progress=False)
        assert sn.point_map(own, inversion, (20, 30)).shape == sn.point_map(own, inversion, (20, 30), inversion).shape
        known = dataclasses.replace(DRAG, lora_steps=1, follow=0.5)
        sn.drag(own, None, PROMPT, latents=latents, **NEAR, options=known, progress=False)


def test_an_inversion_is_read_onto_the_device(gpu_pipe, tmp_path):
    found = null_text(gpu_pipe, ONE, cache=tmp_path)
    again = null_text(gpu_pipe, ONE, cache=tmp_path)
    assert again.series.device == again.trajectory.device == gpu_pipe.device
    assert np.array_equal(numbers(again.series), numbers(found.series))


def test_a_device_may_be_named_with_its_number(gpu, tiny_folder):
    for name in ("sim", "sim:0", gpu):
        pipe = sn.load_pipeline(tiny_folder, name)
        assert pipe.device.type == "sim" and pipe.unet.dtype == torch.float32
    for name in ("meta", "cuda:7", "mps:3"):
        with pytest.raises(ValueError, match="expected device as one that is there"):
            sn.load_pipeline(tiny_folder, name)


def test_ratios_and_weights_may_lie_on_any_device(gpu_pipe):
    a, b = noises = sn.seeded_noise(gpu_pipe, [0, 1])
    half = torch.tensor(0.5, device=gpu_pipe.device)
    assert same(numbers(sn.slerp(a, b, half)), numbers(sn.slerp(a.cpu(), b.cpu(), 0.5)), 1e-6)
    assert sn.mix(noises, torch.stack([half, half])).device == a.device
    with pytest.raises(ValueError, match="the same device"):
        sn.slerp(a, b.cpu(), 0.5)


def test_samples_on_two_devices_are_refused_by_name(gpu_pipe):
    predict, schedule, x0, noise, timesteps = problem(gpu_pipe)
    with pytest.raises(ValueError, match=r"expected batches on one device, got .*: move them with \.to"):
        sn.base_loss(predict, schedule, x0, noise.cpu(), timesteps)


def test_noise_for_a_picture_leaves_the_scheduler_as_it_was(gpu_pipe):
    edit(gpu_pipe, method="sdedit")
    assert gpu_pipe.scheduler.alphas_cumprod.device.type == "cpu"


def test_pictures_on_the_device_can_be_compared_and_encoded(gpu_pipe):
    pixels = torch.rand(2, 3, 64, 64).to(gpu_pipe.device)
    assert sn.encode(gpu_pipe, pixels).device == gpu_pipe.device
    assert torch.isinf(sn.reconstruction(list(pixels), list(pixels))["psnr"]).sum() == 0
    assert sn.ReaderJudge(2).distances(pixels, pixels).tolist() == [0.0, 0.0]


def test_training_runs_and_goes_on_on_the_device(gpu, tiny_folder, tmp_path):
    config = sn.TrainConfig(model=str(tiny_folder), output_dir=tmp_path, steps=1, batch_size=2, rank=2)
    sn.train(config)
    steps = []
    file = sn.train(dataclasses.replace(config, steps=2, strip_every=0), on_step=steps.append)
    assert [step.step for step in steps] == [2] and np.isfinite(steps[0].regularizer)
    pipe = sn.load_pipeline(tiny_folder)
    assert pipe.device == gpu
    assert isinstance(sn.import_lora(pipe, file), Lora)
    sn.export_lora(sn.lora_of(pipe), tmp_path / "kohya.safetensors", "kohya")
    again = sn.import_lora(sn.load_pipeline(tiny_folder), tmp_path / "kohya.safetensors")
    assert again.pairs.keys() == sn.lora_of(pipe).pairs.keys()


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float16], ids=str)
def half_pipe(request):
    return with_lora(build_tiny_pipeline()).to(request.param)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_half_precision_gives_finite_numbers(name, half_pipe):
    found = FUNCTIONS[name](half_pipe)
    assert np.isfinite(numbers(found)).all()
    if name in ("encode", "seeded_noise", "slerp", "mix"):
        assert found.dtype == half_pipe.dtype


NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
FEW = 5
"""Sampling steps in place of those of the notebooks."""


def with_few_steps(function):
    """The function, with few sampling steps whatever it is asked for."""
    signature = inspect.signature(function)

    def shortened(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        if "num_inference_steps" in signature.parameters:
            given.arguments["num_inference_steps"] = FEW
        if "options" in signature.parameters:
            options = given.arguments.get("options", sn.DragOptions())
            few = dict(
                num_inference_steps=FEW, max_steps=min(2, options.max_steps), lora_steps=min(1, options.lora_steps)
            )
            given.arguments["options"] = dataclasses.replace(options, **few)
        return function(*given.args, **given.kwargs)

    return shortened


# matplotlib asks tensors for arrays in a way that NumPy will no longer allow.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_on_a_gpu(notebook, gpu, monkeypatch, tmp_path):
    """All cells, those for Stable Diffusion too, with a tiny pipeline for every model, in float16 as on CUDA."""
    size = 128 if "drag" in notebook.stem else 64  # Where it is dragged is written down in pixels of a postcard.
    lora = sn.lora_of(with_lora(build_tiny_pipeline(size)))

    def load_pipeline(name_or_path="postcard", device=None, dtype=None, smooth=False, config=None):
        pipe = build_tiny_pipeline(size)
        pipe.to(device or gpu, dtype or (torch.float32 if device else torch.float16))
        if smooth:
            sn.import_lora(pipe, smooth if isinstance(smooth, Path) else lora)
        return pipe

    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    train, drags, edits, judge = sn.train, sn.DragEditor, sn.EditSlider, sn.ReaderJudge
    for name in sn.__all__:
        function = getattr(sn, name)
        if inspect.isfunction(function):
            monkeypatch.setattr(sn, name, with_few_steps(function))
    monkeypatch.setattr(sn, "load_pipeline", load_pipeline)
    monkeypatch.setattr("smoothnb.training.trainer.load_pipeline", load_pipeline)
    monkeypatch.setattr(
        sn, "train", lambda config, **options: train(dataclasses.replace(config, steps=2, batch_size=2), **options)
    )
    monkeypatch.setattr(sn, "ReaderJudge", lambda *_, style="plain", **options: judge(16, style=style))
    styles = "smoothnb.postcards.styles._classes"
    classes = pkgutil.resolve_name(styles).__wrapped__(16)
    monkeypatch.setattr(styles, lambda: classes)
    quick = sn.DragOptions(num_inference_steps=FEW, max_steps=2)
    monkeypatch.setattr(sn, "DragEditor", lambda *args, **options: drags(*args, options=quick, **options))
    invert = functools.partial(sn.ddim_invert, progress=False)
    monkeypatch.setattr(sn, "EditSlider", lambda *args, **options: edits(*args, invert=invert, **options))
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__", "display": repr}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for source in sources:
        if "google.colab" not in source:
            exec(source.replace("STABLE_DIFFUSION = False", "STABLE_DIFFUSION = True"), names)
    plt.close("all")
