"""The contract of the public functions: values out of range are refused by an error of the package, equivalent
arguments give equal results, and the pipeline is left as it was."""

import linecache
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from tiny import build_tiny_pipeline, pipeline_state

import smoothnb as sn

PACKAGE = str(Path(sn.__file__).parent)
NAN, INF = math.nan, math.inf
DRAG = sn.DragOptions(num_inference_steps=3, max_steps=1)
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class World:
    """A tiny pipeline with a smooth LoRA at half its strength, a picture, files, and results to start from."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.plain = build_tiny_pipeline()
        self.plain.unet.eval()
        self.plain.save_pretrained(folder / "model")
        config = sn.TrainConfig(
            model=str(folder / "model"), output_dir=folder / "run", steps=1, batch_size=1, rank=2, learning_rate=0.1
        )
        self.lora = sn.train(config)
        self.pipe = sn.load_pipeline(folder / "model", "cpu", smooth=self.lora)
        sn.set_smoothness(self.pipe, 0.5)
        self.pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        self.picture = Image.fromarray(self.pixels)
        self.file = folder / "picture.png"
        self.picture.save(self.file)
        (folder / "cut.png").write_bytes(self.file.read_bytes()[:500])
        (folder / "notes.txt").write_text("a house\na pine\n")
        (folder / "cut.safetensors").write_bytes(self.lora.read_bytes()[:300])
        (folder / "pickle.safetensors").write_bytes(b"\x80\x04anything")
        self.noise = sn.seeded_noise(self.pipe, 3)
        self.inversion = sn.ddim_invert(self.pipe, self.picture, "a house", 3, progress=False)
        self.two = sn.ddim_invert(self.pipe, [self.picture, self.picture], "a house", 3, progress=False)
        self.frames = sn.generate(self.pipe, "a", [0, 1, 2], num_inference_steps=1, progress=False)
        self.istd = sn.istd(self.pipe, ["a", "b"], 3, num_inference_steps=1, progress=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("contract"))


@dataclass(frozen=True)
class Of:
    """A value that depends on the world."""

    value: Callable[[World], object]


def made(value: object, world: World) -> object:
    return value.value(world) if isinstance(value, Of) else value


STEPS = {"num_inference_steps": (0, -1, 1001)}
GUIDANCE = {"guidance_scale": (0.5, -1.0, NAN, INF)}
BATCH = {"batch_size": (0, -1)}
SIZE = {"height": (0, -8, 20), "width": (20,)}
PICTURES = (
    Of(lambda w: w.folder), Of(lambda w: w.folder / "nowhere.png"), Of(lambda w: w.folder / "cut.png"), "", "a\0b",
    Of(lambda w: w.pixels.astype(np.int64)), Of(lambda w: w.pixels / 85), Of(lambda w: w.pixels[..., :0]),
    np.full((4, 4), NAN), torch.full((3, 4, 4), NAN), torch.zeros(3, 4, 4, device="meta"),
)  # fmt: skip
LATENTS = (
    Of(lambda w: w.noise * NAN), Of(lambda w: w.noise / 0), Of(lambda w: w.noise.to("meta")), Of(lambda w: w.noise[:3]),
    Of(lambda w: w.noise[:, :0]),
)  # fmt: skip
SEEDS = ([], 2**64)
ETAS = ([], [0, 2, 1], [NAN, 0, 1])
POINTS = ([], [(1, 2, 3)], [(NAN, 2)], [(-1, 2)], [(1e9, 2)], [(1, INF)])
MASKS = (Image.new("L", (5, 5), 255), np.ones((5, 5), bool), Image.new("L", (64, 64)))

CALLS: dict[str, tuple[dict[str, object], dict[str, tuple]]] = {
    "seeded_noise": ({"pipe": 0, "seed": 3}, {"seed": SEEDS, **SIZE}),
    "encode": ({"pipe": 0, "images": Of(lambda w: w.picture)}, {"images": (*PICTURES, []), **SIZE}),
    "decode": ({"pipe": 0, "latents": Of(lambda w: w.noise)}, {"latents": LATENTS[2:], **BATCH}),
    "generate": (
        {"pipe": 0, "prompt": "a house", "seeds": 3, "num_inference_steps": 1, "progress": False},
        {"prompt": ([],), "seeds": SEEDS, "latents": LATENTS, **STEPS, **GUIDANCE, **BATCH},
    ),
    "sample": (
        {"pipe": 0, "prompt": "a house", "num_inference_steps": 1},
        {"seed": SEEDS, "latents": LATENTS, **STEPS, **GUIDANCE},
    ),
    "interpolate": (
        {"pipe": 0, "a": 3, "b": 4, "etas": [0, 0.5, 1], "num_inference_steps": 1, "guidance_scale": 1.0},
        {"a": (Of(lambda w: w.two), *LATENTS), "etas": (*ETAS, 0, -1), **STEPS, **GUIDANCE, **BATCH},
    ),
    "ddim_invert": (
        {"pipe": 0, "images": Of(lambda w: w.picture), "num_inference_steps": 1, "progress": False},
        {"images": (*PICTURES, []), "prompt": (["a", "b"],), "fixed_point_steps": (-1,), **STEPS, **SIZE},
    ),
    "null_text_invert": (
        {"pipe": 0, "images": Of(lambda w: w.picture), "num_inference_steps": 1, "inner_steps": 1, "progress": False},
        {
            "images": PICTURES[:3], "guidance_scale": (1.0, 0.5, NAN), "inner_steps": (-1,), "start": ("zero",),
            "tolerance": (-1.0, NAN), **STEPS, **SIZE,
        },
    ),
    "reconstruct": (
        {"pipe": 0, "inversion": Of(lambda w: w.inversion), "progress": False},
        {"pipe": (Of(lambda w: w.plain),)},
    ),
    "edit_text": (
        {"pipe": 0, "inversion": Of(lambda w: w.inversion), "target_prompt": "a red house"},
        {
            "target_prompt": ("", "a house", ["a", "b"]), "switch": (-0.1, 1.1, NAN), "method": ("none",),
            "layout_switch": (-0.1, 2.0), **GUIDANCE,
        },
    ),
    "word_map": (
        {"pipe": 0, "inversion": Of(lambda w: w.inversion), "word": "house"},
        {"word": ("zebra", ""), "every": (0, -1)},
    ),
    "drag": (
        {
            "pipe": 0, "image": Of(lambda w: w.picture), "prompt": "a house", "handles": [(20, 30)],
            "targets": [(44, 31)], "options": DRAG, "progress": False,
        },
        {
            "image": PICTURES[:3], "handles": POINTS, "targets": POINTS, "mask": MASKS, "frames": (1, -1),
            "guidance_scale": (0.5, 3.0), **SIZE,
        },
    ),
    "point_map": (
        {"pipe": 0, "inversion": Of(lambda w: w.inversion), "point": (20, 30)},
        {"point": ((-1, 3), (1e9, 1), (NAN, 1)), "strength": (0.0, 2.0), "blocks": ((9,), ())},
    ),
    "istd": (
        {"pipe": 0, "prompts": "a", "num_ratios": 3, "num_inference_steps": 1, "progress": False},
        {
            "prompts": ([],), "num_ratios": (2, 0), "pixel_range": ((1, 0), (0, NAN)), "correction": (2, -1),
            "results": (Of(lambda w: w.folder), Of(lambda w: w.file)), **STEPS, **GUIDANCE, **BATCH, **SIZE,
        },
    ),
    "path_lengths": (
        {
            "pipe": 0, "prompts": ["a"], "distances": lambda a, b: (a - b).square().mean((1, 2, 3)),
            "num_inference_steps": 1, "progress": False,
        },
        {"prompts": ([],), "epsilon": (0.0, 1.0, NAN), "distances": (lambda a, b: (a - b).mean(),), **STEPS, **BATCH},
    ),
    "compare": (
        {"candidates": Of(lambda w: {"a": w.istd, "b": w.istd})},
        {"candidates": ({}, Of(lambda w: {"a": w.istd}), Of(lambda w: {"a": w.istd, "b": w.istd[:1]}))},
    ),
    "reconstruction": (
        {"images": Of(lambda w: [w.picture]), "originals": Of(lambda w: [w.picture])},
        {"images": ([], Of(lambda w: [w.picture] * 2), [Image.new("RGB", (1, 1))])},
    ),
    "neighbour_distances": (
        {"frames": Of(lambda w: w.frames)},
        {"frames": ([], Of(lambda w: w.frames[:1]), Of(lambda w: [w.frames[0], Image.new("RGB", (5, 5))]))},
    ),
    "load_pipeline": (
        {"name_or_path": Of(lambda w: w.folder / "model"), "device": "cpu"},
        {
            "name_or_path": (
                "", "no-such-model", Of(lambda w: w.folder), Of(lambda w: w.file), Of(lambda w: w.folder / "nowhere"),
                Of(lambda w: w.folder / "cut.safetensors"), Of(lambda w: w.folder / "pickle.safetensors"),
            ),
            "device": ("nowhere", "cuda:99"), "smooth": (True, "nowhere.safetensors"),
        },
    ),
    "set_smoothness": (
        {"pipe": 0, "smoothness": 0.5},
        {"smoothness": (-1.0, NAN, INF), "pipe": (Of(lambda w: w.plain),)},
    ),
    "lora_of": ({"pipe": 0}, {"pipe": (Of(lambda w: w.plain),)}),
    "read_prompts": (
        {"source": "postcard", "count": 2},
        {"source": ("nowhere.txt", Of(lambda w: w.folder), Of(lambda w: w.file)), "count": (0, -1)},
    ),
    "coarse_to_fine": ({"count": 5}, {"count": (1, 0, -1)}),
    "pad_weights": ({"rows": 3}, {"rows": (1, 0), "columns": (1, 0)}),
    "strip": ({"frames": Of(lambda w: w.frames)}, {"frames": ([], {}), "labels": (["a"],), "size": (0, -1)}),
    "difference": (
        {"a": Of(lambda w: w.picture), "b": Of(lambda w: w.frames[0])},
        {"gain": (-1.0, NAN)},
    ),
    "unit_directions": ({"shape": (2, 3)}, {"shape": ((2,), (2, 0))}),
    "mark": (
        {"picture": Of(lambda w: w.picture)},
        {"handles": ([(NAN, 1)],), "mask": (Image.new("L", (3, 3)),), "width": (0,)},
    ),
    "MixingSlider": ({"frames": Of(lambda w: w.frames)}, {"frames": ([], {}), "etas": ([0, 1],), "width": (0,)}),
    "MixingPad": (
        {"frames": Of(lambda w: w.frames[:2] * 2)},
        {"columns": (0, 1, 3), "corners": (("a",),), "width": (0,)},
    ),
    "DragCanvas": (
        {"picture": Of(lambda w: w.picture), "handles": [(20, 30)], "targets": [(44, 31)]},
        {"picture": PICTURES[:3], "handles": POINTS, "mask": MASKS, "width": (0,)},
    ),
}  # fmt: skip
"""By public name: a call that works (pipe is the world's own), and by argument what must be refused."""

SAME: dict[tuple[str, str], tuple] = {
    ("encode", "images"): (
        Of(lambda w: w.file), Of(lambda w: str(w.file)), Of(lambda w: w.pixels), Of(lambda w: w.pixels / 255),
        Of(lambda w: torch.from_numpy(w.pixels).permute(2, 0, 1)), Of(lambda w: [w.picture]),
        Of(lambda w: w.picture.convert("RGBA")), Of(lambda w: w.pixels[None]),
    ),
    ("seeded_noise", "seed"): (np.int64(3), torch.tensor(3)),
    ("generate", "seeds"): ([3], range(3, 4), (3,), np.array([3]), torch.tensor([3])),
    ("generate", "prompt"): (["a house"], ("a house",)),
    ("interpolate", "etas"): (3, (0, 0.5, 1), np.array([0, 0.5, 1]), torch.tensor([0, 0.5, 1])),
    ("ddim_invert", "images"): (Of(lambda w: w.file), Of(lambda w: iter([w.picture]))),
    ("drag", "handles"): (((20, 30),), [[20.0, 30.0]]),
    ("drag", "mask"): (Image.new("L", (64, 64), 255), np.ones((64, 64), bool)),
}  # fmt: skip


def call(name: str, world: World, **changed: object) -> object:
    arguments = CALLS[name][0] | changed
    arguments = {key: made(value, world) for key, value in arguments.items()}
    if CALLS[name][0].get("pipe") == 0 and "pipe" not in changed:
        arguments["pipe"] = world.pipe
    result = getattr(sn, name)(**arguments)
    return list(result) if name in ("sample", "interpolate", "edit_text") else result


def ours(error: BaseException) -> bool:
    """Whether an error comes from a `raise` of the package."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(PACKAGE) and linecache.getline(last.filename, last.lineno).strip().startswith(
        "raise"
    )


def bits(result: object) -> object:
    """What equal results have in common."""
    if isinstance(result, Image.Image):
        return result.tobytes()
    if isinstance(result, torch.Tensor):
        return result.float().numpy().round(4).tobytes()
    if isinstance(result, sn.Inversion):
        return bits(result.trajectory)
    if isinstance(result, sn.Dragged):
        return bits(result.picture)
    return [bits(one) for one in result]


@pytest.mark.parametrize("name", CALLS)
def test_a_plain_call_works_and_leaves_the_pipeline_as_it_was(world, name):
    before = pipeline_state(world.pipe)
    assert call(name, world) is not NotImplemented
    assert pipeline_state(world.pipe) == before


@pytest.mark.parametrize(("name", "argument"), [(name, key) for name, (_, bad) in CALLS.items() for key in bad])
def test_what_is_out_of_range_is_refused_by_an_error_of_ours(world, name, argument):
    before = pipeline_state(world.pipe)
    for value in CALLS[name][1][argument]:
        with pytest.raises((ValueError, OSError, traitlets.TraitError)) as caught:
            call(name, world, **{argument: value})
        # The system's own errors name the file.
        assert ours(caught.value) or getattr(caught.value, "filename", None), f"{argument}={value!r}: {caught.value!r}"
        assert len(str(caught.value)) > 15
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert argument in str(caught.value)
    assert pipeline_state(world.pipe) == before


@pytest.mark.parametrize(("name", "argument"), SAME)
def test_arguments_that_mean_the_same_give_the_same_result(world, name, argument):
    plain = bits(call(name, world))
    for value in SAME[name, argument]:
        assert bits(call(name, world, **{argument: value})) == plain, value


finite = st.floats(-1e3, 1e3)
ratios = st.floats(0, 1)


@few
@given(st.integers(0, 2**32), st.lists(ratios, min_size=1, max_size=5))
def test_slerp_stays_between_its_ends(seed, etas):
    a, b = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    mixed = sn.slerp(a, b, etas)
    assert mixed.shape == (len(etas), 4, 8, 8) and torch.isfinite(mixed).all()
    norms = mixed.flatten(1).norm(dim=1)
    assert (norms < max(a.norm(), b.norm()) * 1.01).all()


@few
@given(st.one_of(st.floats(max_value=-1e-6), st.floats(min_value=1.000001), st.just(NAN)))
def test_slerp_refuses_ratios_outside_of_0_to_1(eta):
    with pytest.raises(ValueError, match="eta as a number in"):
        sn.slerp(torch.ones(3), torch.tensor([1.0, 2, 3]), eta)


@few
@given(st.lists(st.floats(0, 1e3), min_size=3, max_size=3).filter(lambda w: sum(w) > 1e-3))
def test_mixes_have_unit_weight(weights):
    basis = torch.eye(3)
    assert sn.mix(basis, weights).norm().item() == pytest.approx(1, abs=1e-5)


@few
@given(st.integers(2, 60))
def test_coarse_to_fine_is_a_permutation_of_even_ratios(count):
    order = sn.coarse_to_fine(count)
    assert sorted(order) == pytest.approx(np.linspace(0, 1, count).tolist()) and order[:2] == [0, 1]


@pytest.mark.parametrize(
    ("config", "name", "low", "high"),
    [
        (sn.TrainConfig, "steps", 1, None), (sn.TrainConfig, "warmup_steps", 0, None),
        (sn.TrainConfig, "drop_prompt", 0.0, 1.0), (sn.TrainConfig, "regularizer_weight", 0.0, None),
        (sn.DragOptions, "num_inference_steps", 2, None), (sn.DragOptions, "max_steps", 0, None),
        (sn.DragOptions, "follow", 0.0, 1.0), (sn.DragOptions, "lora_rank", 1, None),
    ],
)  # fmt: skip
def test_settings_have_bounds(config, name, low, high):
    whole = isinstance(low, int)
    good = st.integers(low, low + 1000) if whole else st.floats(low, high or 1e6)
    low_bad = (
        st.integers(max_value=low - 1 - (name == "num_inference_steps")) if whole else st.floats(max_value=low - 1e-6)
    )
    bad = low_bad if high is None else st.one_of(low_bad, st.floats(min_value=high + 1e-6))

    @few
    @given(good)
    def accepted(value):
        assert getattr(config(**{name: value}), name) == value

    @few
    @given(bad)
    def refused(value):
        with pytest.raises(ValueError, match=name):
            config(**{name: value})

    accepted()
    refused()
