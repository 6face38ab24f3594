"""Calls every public function with good and bad arguments, as a user would: without the tests' type checker.

    python tests/fuzz.py --seconds 60 --seed 0

A call either gives a result that passes its check, the same as that of the plain call where an argument was only
spelled otherwise; or it raises an error of ours, by a `raise` in smoothnb itself. After each call the pipeline draws
bit for bit what it drew before, and nothing is attached to it.
"""

import argparse
import copy
import inspect
import linecache
import logging
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import traitlets
from PIL import Image
from tiny import build_tiny_pipeline

import smoothnb as sn

PACKAGE = str(Path(sn.__file__).parent)
OURS = (ValueError, TypeError, OSError, FloatingPointError, RuntimeError, traitlets.TraitError, KeyboardInterrupt)
JUNK = (None, "a", "5", b"x", -1, 2.5, float("nan"), float("inf"), True, [], {}, object(), (1, 2, 3), torch.nan, 1j)


@dataclass
class Good:
    """What must work."""

    value: object


@dataclass
class Alike(Good):
    """What must give the same as the plain value."""

    plain: object


@dataclass
class Odd:
    """What may work or not."""

    value: object


@dataclass
class Bad:
    """What must be refused."""

    value: object


class World:
    """What arguments are made of: a tiny pipeline with a smooth LoRA at half its strength, and files."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        self.plain = build_tiny_pipeline()
        self.plain.unet.eval()
        self.model = folder / "model"
        self.plain.save_pretrained(self.model)
        config = sn.TrainConfig(
            model=str(self.model), output_dir=folder / "run", steps=1, batch_size=1, rank=2, learning_rate=0.1
        )
        self.lora = sn.train(config)
        self.pipe = sn.load_pipeline(self.model, "cpu", smooth=self.lora)
        sn.set_smoothness(self.pipe, 0.5)
        self.pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        self.picture = Image.fromarray(self.pixels)
        self.file = folder / "picture.png"
        self.picture.save(self.file)
        (folder / "notes.txt").write_text("a house\na pine\n")
        (folder / "binary.txt").write_bytes(bytes(range(256)))
        (folder / "cut.png").write_bytes(self.file.read_bytes()[:500])
        (folder / "cut.safetensors").write_bytes(self.lora.read_bytes()[:300])
        (folder / "pickle.safetensors").write_bytes(b"\x80\x04anything")
        self.inversion = sn.ddim_invert(self.pipe, self.picture, "a house", 3, progress=False)
        self.two = sn.ddim_invert(self.pipe, [self.picture, self.picture], "a house", 3, progress=False)
        self.istd = sn.istd(self.pipe, ["a", "b"], 3, num_inference_steps=1, progress=False)
        self.frames = sn.generate(self.pipe, "a", [0, 1, 2], num_inference_steps=1, progress=False)
        self.inversion.save(folder / "inversion.safetensors")

    def new(self, suffix: str = "") -> Path:
        self.count += 1
        return self.folder / f"new-{self.count}{suffix}"


def state(pipe, whole: bool = False) -> tuple:
    """All that a call must leave alone, and what the UNet says; `whole` draws a picture too, which takes longer."""
    unet = pipe.unet
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())
    flags = [(name, p.requires_grad, p.grad is None) for name, p in unet.named_parameters()]
    processors = {name: id(processor) for name, processor in unet.attn_processors.items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        said = unet(torch.randn(1, 4, 8, 8, generator=generator), 500, torch.ones(1, 3, 16)).sample.numpy().tobytes()
    drawn = sn.generate(pipe, "a house", 1, num_inference_steps=1, progress=False)[0].tobytes() if whole else b""
    return said, processors, hooks, flags, unet.training, sorted(getattr(unet, "peft_config", {})), drawn


# Kinds of arguments: each gives the values that there are, the first of which is the usual one.


def junk(*but: type) -> list[Bad]:
    """What no argument takes, leaving out what this one does."""
    return [Bad(value) for value in JUNK if not isinstance(value, but) or (isinstance(value, bool) and bool not in but)]


def whole(usual: int, *bad: object, more: tuple = ()) -> Callable[[World], list]:
    values = [Good(usual), Alike(np.int64(usual), usual), Alike(torch.tensor(usual), usual), *more]
    wrong = [Bad(v) for v in (float(usual), str(usual), "x", float("nan"), [], object(), [usual], True, *bad)]
    return lambda w: values + wrong


def real(usual: float, *bad: object, none: bool = False, more: tuple = ()) -> Callable[[World], list]:
    values = [Good(usual), Alike(np.float64(usual), usual), Alike(torch.tensor(usual).double(), usual), *more]
    wrong = [Bad(v) for v in (str(usual), "x", float("nan"), float("inf"), [], object(), b"1", 1j, *bad)]
    return lambda w: values + wrong + ([] if none else [Bad(None)])


def one_of(*values: object, bad: tuple = ("no such thing", 3, None, [], b"x")) -> Callable[[World], list]:
    return lambda w: [*(Good(v) for v in values), *(Bad(v) for v in bad)]


def flag(w: World) -> list:
    return [Good(False), Alike(np.bool_(False), False), Bad("no"), Bad(2), Bad([]), Bad(None), Bad(np.zeros(3))]


def pipe(w: World) -> list:
    return [Good(w.pipe), *junk(), Bad(w.pipe.unet), Bad(str(w.model))]


def inversion(w: World) -> list:
    return [Good(w.inversion), *junk(), Bad(w.inversion.trajectory), Bad(str(w.folder / "inversion.safetensors"))]


def texts(w: World) -> list:
    good = [Good("a house"), Alike(["a house"], "a house"), Alike(("a house",), "a house"), Good(""), Good("ü ∅ 🏠 \0")]
    return good + [Bad(v) for v in (None, 3, [3], b"a house", [b"a"], [None], [["a"]], float("nan"), object(), True)]


def text(w: World) -> list:
    return [Good("a house"), Good(""), *(Bad(v) for v in (None, 3, ["a house"], b"a", object(), float("nan"), True))]


def prompt(w: World) -> list:
    embeds = w.pipe.encode_prompt("a house", "cpu", 1, False)[0]
    return [
        *texts(w), Alike(embeds, "a house"), Bad(embeds[0]), Bad(embeds[..., :5]), Bad(embeds * torch.nan),
        Bad(embeds.long()), Bad(embeds.to("meta")), Bad(embeds[:0]), Bad([]), Odd(embeds[:, :7]),
    ]  # fmt: skip


def seeds(w: World) -> list:
    good = [Good(3), Alike(np.int32(3), 3), Alike(np.uint8(3), 3), Alike(torch.tensor(3), 3), Alike([3], 3), Good(-5)]
    good += [Alike(range(3, 4), 3), Alike(np.array([3]), 3), Alike((3,), 3), Good(2**64 - 1), Alike(iter([3]), 3)]
    return good + [Bad(v) for v in ("3", 3.0, None, [], True, [True], 2**64, [2.5], float("nan"), b"3", {}, object())]


def noise(w: World) -> list:
    x = sn.seeded_noise(w.pipe, 3)
    return [
        Good(x), Alike(x[None], x), Good(x.half()), Alike(x.double(), x), Alike(x.clone().requires_grad_(), x),
        Bad(x * torch.nan), Bad(x / 0), Bad(x.long()), Bad(x.to("meta")), Bad(x[:3]), Bad(x[0]), Bad(x[:0]),
        Bad(x[:, :0]), Bad(x[None, None]), Bad(x.numpy()), Bad(x.tolist()), Bad("noise"), Bad(x.to(torch.complex64)),
        Bad(x.to_sparse()), Good(sn.seeded_noise(w.pipe, 3, 32, 96)), Odd(torch.randn(4, 1, 1)), Odd(x * 1e30),
        Odd(torch.randn(4, 3, 5)),
    ]  # fmt: skip


def picture(w: World) -> list:
    p, a = w.picture, w.pixels
    spelled = [Alike(v, p) for v in (
        w.file, str(w.file), a, a / 255, torch.from_numpy(a).permute(2, 0, 1), a[None], [p], (p,), iter([p]),
        p.convert("RGBA"), torch.from_numpy(a).permute(2, 0, 1).double() / 255, np.asfortranarray(a), a[::1, ::1],
    )]  # fmt: skip
    names = ("1", "L", "P", "LA", "CMYK", "YCbCr", "HSV", "RGBX", "LAB")
    modes = [Good(p.convert(mode)) for mode in names]
    modes += [
        # By way of another mode, for the oldest Pillow that we take.
        Good(p.convert("L").convert("I;16")),
        Good(p.convert("RGBA").convert("RGBa")),
        Good(p.convert("LA").convert("La")),
        Good(Image.fromarray(a[..., 0] / np.float32(255))),
        Good(p.convert("I")),
    ]
    sizes = [Good(Image.new("RGB", s, "red")) for s in ((1, 1), (10000, 1), (1, 10000), (63, 65))]
    bad = [
        Image.new("F", (4, 4), 77.0), Image.new("I", (4, 4), -3), Image.new("RGB", (0, 4)),
        a.astype(np.int64), a > 100, a.astype(object), a[..., :0], a / 255 * 3, a / 255 - 0.5, np.full((4, 4), np.nan),
        torch.full((3, 4, 4), torch.nan), torch.zeros(3, 4, 4, device="meta"), torch.zeros(5, 4, 4), a[0, 0],
        w.folder, w.folder / "nowhere.png", w.folder / "notes.txt", w.folder / "cut.png", "", "a\0b", "~nobody/x.png",
        None, 3, b"png", [], [None], [[p]], object(), np.zeros(()), {}, float("nan"), np.zeros((4, 4), "U1"),
        torch.zeros(3, 4, 4, dtype=torch.complex64), "x" * 5000, np.zeros((4, 4), np.float16) - 1,
    ]  # fmt: skip
    return [Good(p), *spelled, *modes, *sizes, *(Bad(v) for v in bad)]


def own_size(w: World) -> list:
    """Pictures on which points are where they are in the usual one."""
    same = [Alike(v, w.picture) for v in (w.file, str(w.file), w.pixels, torch.from_numpy(w.pixels).permute(2, 0, 1))]
    return [Good(w.picture), *same, *(v for v in picture(w) if isinstance(v, Bad)), Bad([w.picture])]


def pil(w: World) -> list:
    modes = [Good(w.picture.convert(m)) for m in ("1", "L", "P", "LA", "CMYK", "HSV", "RGBA")]
    modes.append(Good(w.picture.convert("L").convert("I;16")))
    bad = (None, 3, "x", b"x", w.pixels, [], object(), Image.new("RGB", (64, 0)))
    return [Good(w.picture), *modes, Good(Image.new("LAB", (64, 64))), *(Bad(v) for v in bad)]


def frames(w: World) -> list:
    return [
        Good(w.frames), Good(tuple(w.frames)), Good({"a": w.frames, "b": w.frames}), Bad([]), Bad({}), Bad(None),
        Bad("abc"), Bad([None] * 3), Bad([w.pixels] * 3), Bad({"a": w.frames, "b": w.frames[:2]}), Bad(3),
        Bad({"a": 3}), Bad([Image.new("RGB", (0, 3))] * 3), Bad(w.picture),
    ]  # fmt: skip


def row(w: World) -> list:
    return [Good(w.frames), Good(iter(w.frames)), *(Bad(v) for v in ([], None, "abc", 3, [None] * 3, w.frames[:1],
            [w.frames[0], Image.new("RGB", (5, 5))], {}, [w.pixels] * 2))]  # fmt: skip


def etas(w: World) -> list:
    good = [Good([0, 0.5, 1]), Alike((0, 0.5, 1), [0, 0.5, 1]), Alike(np.array([0, 0.5, 1]), [0, 0.5, 1])]
    good += [Alike(torch.tensor([0, 0.5, 1]), [0, 0.5, 1]), Alike([np.float32(0), 0.5, True and 1], [0, 0.5, 1])]
    bad = ([], [0, 2, 1], [float("nan"), 0, 1], "abc", ["a", "b", "c"], [None] * 3, [[0], [1]], [[0, 1], [1]], {},
           b"abc", object(), torch.zeros(3, device="meta"), [1j, 0, 1])  # fmt: skip
    return good + [Bad(v) for v in bad]


def numbers(w: World) -> list:
    """Likewise, where more than 1 is as good."""
    return [v for v in etas(w) if repr(v.value) != "[0, 2, 1]"] + [Good([0, 2, 1])]


def points(usual: tuple) -> Callable[[World], list]:
    bad = ([], None, 3, "ab", [(1,)], [(1, 2, 3)], [("1", "2")], [(float("nan"), 2)], [(-1, 2)], [(1e9, 2)], [None],
           [3], [(1, None)], {}, [(1, float("inf"))], object(), [(True, False)], b"ab")  # fmt: skip
    return lambda w: [
        Good([usual]), Alike((usual,), [usual]), Alike(np.array([usual]), [usual]), Alike([list(usual)], [usual]),
        Alike(torch.tensor([usual]), [usual]), *(Bad(v) for v in bad),
    ]  # fmt: skip


def mask(w: World) -> list:
    white = Image.new("L", (64, 64), 255)
    bad = (Image.new("L", (5, 5), 255), np.ones((5, 5), bool), np.ones((64, 64), int), 3, "nowhere.png", [], object(),
           np.full((64, 64), np.nan), Image.new("L", (64, 64)))  # fmt: skip
    same = (np.ones((64, 64), bool), white.convert("RGB"), white.convert("1"))
    return [Good(None), Good(white), *(Alike(v, white) for v in same), *(Bad(v) for v in bad)]


def size(w: World) -> list:
    return [
        Good(64),
        Alike(np.int64(64), 64),
        Good(None),
        *(Bad(v) for v in (0, -8, 20, 64.0, "64", [64], float("nan"))),
    ]


def place(suffix: str) -> Callable[[World], list]:
    """Where a file can be written."""
    return lambda w: [
        Good(w.new(suffix)), Good(str(w.new(suffix))), Good(w.new("") / f"deep{suffix}"), Bad(w.folder), Bad(""),
        Bad(w.file / f"below{suffix}"), Bad(f"/proc/none{suffix}"), Bad(None), Bad(3), Bad(b"x"), Bad("a\0b" + suffix),
        Bad(f"{'x' * 300}{suffix}"), Bad(w.new(".nothing")),
    ]  # fmt: skip


def cache(w: World) -> list:
    return [Good(None), Good(w.new()), Good(str(w.new())), Bad(3), Bad([]), Bad("a\0b"), Bad(object()), Bad(b"x")]


def samples(*shape: int) -> Callable[[World], list]:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return lambda w: [
        Good(x), Alike(x.clone(), x), *(Bad(v) for v in (
            x.long(), x.to("meta"), x[:, :1].flatten(), x[:1], x.numpy(), None, 3, "x", x.to(torch.complex64), [x],
        ))
    ]  # fmt: skip


def times(w: World) -> list:
    t = torch.tensor([3, 700])
    return [Good(t), Alike(t.int(), t), *(Bad(v) for v in (
        t.float(), t + 999, -t, t[:1], t[None], None, 3, [3, 700], t > 5, t.to("meta"), "t", t.numpy()
    ))]  # fmt: skip


def predict(w: World) -> list:
    bad = (None, 3, "f", lambda x, t: x[:1], lambda x, t: x[..., :1])
    return [Good(lambda x, t: x * 0.5), Good(lambda x, t: x.square()), *(Bad(v) for v in bad)]


def only(*values: object) -> Callable[[World], list]:
    return lambda w: [Good(v) for v in values]


def pictures_check(*size: int, count: int | None = None) -> Callable:
    def check(result: list, given: dict, w: World) -> None:
        assert isinstance(result, list) and result and (count is None or len(result) == count), (
            f"{len(result)} pictures"
        )
        for one in result:
            assert isinstance(one, Image.Image) and one.mode == "RGB" and (not size or one.size == size), one

    return check


def finite_check(result: object, given: dict, w: World) -> None:
    for x in result.values() if isinstance(result, Mapping) else [result]:
        assert np.isfinite(np.asarray(x.detach() if isinstance(x, torch.Tensor) else x)).all(), "not finite"


def last_finite_check(result: list[sn.Step], given: dict, w: World) -> None:
    finite_check(result[-1].latents, given, w)


def inversion_check(result: sn.Inversion, given: dict, w: World) -> None:
    assert torch.isfinite(result.trajectory).all() and (result.series is None or torch.isfinite(result.series).all())
    assert len(result.trajectory) == result.settings.num_inference_steps + 1


def file_check(result: Path, given: dict, w: World) -> None:
    assert Path(result).stat().st_size > 0
    assert not [f for f in Path(result).parent.iterdir() if f.name.endswith((".partial", ".unfinished"))], "half a file"


def nothing(result: object, given: dict, w: World) -> None:
    """Whatever comes will do."""


def picture_check(result: Image.Image, given: dict, w: World) -> None:
    pictures_check()([result], given, w)


@dataclass
class Entry:
    """One public name: how to call it, with which kinds of arguments, and what must come out."""

    arguments: dict[str, Callable[[World], list]]
    check: Callable = nothing
    call: Callable | None = None
    weight: float = 1.0
    shows: Callable = repr
    """From a result to what two alike ones have in common."""
    required: tuple[str, ...] = field(default=())


def bits(result: object) -> object:
    """What two results must have in common."""
    if isinstance(result, Image.Image):
        return result.size, result.tobytes()
    if isinstance(result, torch.Tensor):
        return result.detach().float().numpy().round(4).tobytes()
    if isinstance(result, np.ndarray):
        return result.round(6).tobytes()
    if isinstance(result, sn.Inversion):
        return bits(result.trajectory)
    if isinstance(result, sn.Dragged):
        return bits(result.picture)
    if isinstance(result, sn.Step):
        return bits(result.latents)
    if isinstance(result, dict):
        return {name: bits(value) for name, value in result.items()}
    if isinstance(result, list | tuple):
        return [bits(one) for one in result]
    return None


def run(iterator: Iterator) -> list:
    return list(islice(iterator, 20))


def on_copy(function: Callable) -> Callable:
    """Calls a function that changes its pipeline with a copy of it."""

    def call(pipe, *args, **kwargs):
        if not hasattr(pipe, "unet"):
            return function(pipe, *args, **kwargs)
        own = copy.deepcopy(pipe)
        before = state(own)
        try:
            return function(own, *args, **kwargs)
        except BaseException:
            assert state(own) == before, "an error left something behind"
            raise

    return call


def waited(widget):
    def call(*args, **kwargs):
        made = widget(*args, **kwargs)
        if hasattr(made, "wait"):
            made.wait()
        return made

    return call


def lora_sources(w: World) -> list:
    good = [Good(w.lora), Good(str(w.lora)), Good(w.lora.parent)]
    bad = (None, 3, b"x", "nowhere.safetensors", w.file, w.folder / "cut.safetensors", w.folder / "pickle.safetensors",
           w.folder / "inversion.safetensors", w.model / "unet" / "diffusion_pytorch_model.safetensors", "", "a\0b", [],
           object(), w.model, sn.Lora({}))  # fmt: skip
    return good + [Bad(v) for v in bad]


def config(w: World) -> list:
    usual = sn.TrainConfig(model=str(w.model), output_dir=w.new(), steps=1, batch_size=1, rank=1)
    return [
        Good(usual), *junk(), Bad(replace(usual, model="nowhere/at/all")), Bad(replace(usual, data="./nowhere")),
        Bad(replace(usual, height=20)), Bad(replace(usual, output_dir=w.file)),
        Bad(replace(usual, data=str(w.folder / "x"))),
    ]  # fmt: skip


def models(w: World) -> list:
    bad = (None, 3, b"x", "", "no-such-model", w.folder, w.file, w.folder / "cut.safetensors", [], "a\0b", object(),
           w.folder / "pickle.safetensors", w.lora, w.folder / "nowhere", "~nobody/x")  # fmt: skip
    return [Good(w.model), Good(str(w.model)), *(Bad(v) for v in bad)]


def schedule(w: World) -> list:
    return [Good(sn.Schedule.of(w.pipe.scheduler)), *junk(), Bad(w.pipe.scheduler)]


def constant(w: World) -> list:
    return [Good(sn.RunningConstant()), *junk()]


def ends(w: World) -> list:
    bad = (
        None,
        "3",
        2.5,
        True,
        [],
        w.two,
        torch.randn(2, 4, 8, 8),
        w.inversion.latents * torch.nan,
        object(),
        [3],
        b"x",
    )
    return [Good(3), Alike(np.int64(3), 3), Good(sn.seeded_noise(w.pipe, 5)), Good(w.inversion), *(Bad(v) for v in bad)]


def walks(w: World) -> list:
    good = {"a house": {"base": w.frames}}
    bad = (
        {},
        None,
        3,
        [],
        {"a": {}},
        {"a": w.frames},
        {"a": {"b": []}},
        {"a": {"b": w.frames[:1]}},
        {3: {"a": w.frames}},
    )
    return [Good(good), *(Bad(v) for v in bad)]


def candidates(w: World) -> list:
    bad = (None, {}, {"a": w.istd}, [w.istd, w.istd], {"a": w.istd, "b": None}, {"a": w.istd, "b": "postcard"}, 3,
           {"a": w.istd, "b": (w.pipe, "x")}, {"a": w.istd, "b": (w.pipe, -1)}, {1: w.istd, 2: w.istd},
           {"a": w.istd, "b": (w.pipe,)}, {"a": w.istd, "b": w.istd[:1]})  # fmt: skip
    return [Good({"a": w.istd, "b": w.istd}), *(Bad(v) for v in bad)]


STEPS = whole(2, 0, -1, 1001, None)
GUIDANCE = real(3.0, 0.5, -1, none=True, more=(Good(1), Odd(1e30)))
BATCH = whole(2, 0, -1, None)
QUIET = {"progress": only(False)}
X, NOISE, DELTA = samples(2, 3, 4, 4), samples(2, 3, 4, 4), samples(2, 3, 4, 4)
WIDTH = whole(64, 0, -5, None)
OPTIONS = sn.DragOptions(num_inference_steps=3, max_steps=2)


def options(w: World) -> list:
    return [Good(OPTIONS), *junk(), Bad(replace(OPTIONS, blocks=(9,))), Bad(replace(OPTIONS, radius=1e5))]


def drag_options(**kwargs) -> sn.DragOptions:
    return sn.DragOptions(**kwargs)


TABLE: dict[str, Entry] = {
    "slerp": Entry({"a": samples(2, 4, 8, 8), "b": only(torch.ones(2, 4, 8, 8)), "eta": etas}, finite_check),
    "mix": Entry(
        {
            "noises": lambda w: [
                Good(sn.seeded_noise(w.pipe, [0, 1, 2])),
                *junk(),
                Bad(torch.full((3, 2), torch.nan)),
                Bad(torch.ones(3).long()),
            ],
            "weights": numbers,
        },
        finite_check,
    ),
    "seeded_noise": Entry(
        {"pipe": pipe, "seed": seeds, "height": size, "width": size}, finite_check, required=("seed",)
    ),
    "encode": Entry({"pipe": pipe, "images": picture, "height": size, "width": size}, finite_check),
    "decode": Entry({"pipe": pipe, "latents": noise, "batch_size": BATCH}, pictures_check(count=1)),
    "load_pipeline": Entry(
        {
            "name_or_path": models,
            "device": one_of("cpu", torch.device("cpu"), None, bad=("cpuu", "meta", 3.5, [], "cuda:99", b"cpu")),
            "dtype": one_of(
                torch.float32, torch.bfloat16, None, bad=("float16", torch.int8, 3, torch.complex64, float)
            ),
            "smooth": lambda w: [
                Good(False),
                Good(w.lora),
                Bad(True),
                Bad(3.5),
                Bad([]),
                Bad("nowhere.safetensors"),
                Bad(None),
            ],
        },
        weight=0.4,
    ),
    "UnknownWordsWarning": Entry({}, call=lambda: sn.UnknownWordsWarning("a")),
    "example_picture": Entry({"name": one_of("house", "lighthouse")}, lambda r, g, w: picture_check(r[0], g, w)),
    "import_lora": Entry(
        {"pipe": lambda w: [Good(w.plain), Bad(w.pipe), Bad(None), Bad("x")], "source": lora_sources},
        call=on_copy(sn.import_lora),
        weight=0.5,
    ),
    "lora_of": Entry(
        {
            "pipe": lambda w: [Good(w.pipe), Bad(w.plain), *junk()],
            "dtype": one_of(None, torch.float16, bad=("half", 3, torch.int8, float)),
        }
    ),
    "export_lora": Entry(
        {
            "lora": lambda w: [Good(sn.lora_of(w.pipe)), *junk(), Bad(sn.Lora({})), Bad(str(w.lora))],
            "path": place(".safetensors"),
            "form": one_of("diffusers", "kohya"),
            "metadata": one_of(None, {"a": "b"}, bad=(3, {"a": 3}, {3: "a"}, [], "x")),
        },
        file_check,
    ),
    "Lora": Entry({"pairs": only({})}),
    "set_smoothness": Entry(
        {"pipe": lambda w: [Good(w.pipe), Bad(w.plain), *junk()], "smoothness": real(0.7, -1)},
        call=on_copy(sn.set_smoothness),
        weight=0.5,
    ),
    "Schedule": Entry(
        {
            "alpha_bar": lambda w: [
                Good(w.pipe.scheduler.alphas_cumprod),
                *junk(),
                Bad(torch.ones(3)),
                Bad(torch.rand(3, 3)),
                Bad(torch.ones(0)),
                Bad(torch.tensor([0.5, torch.nan])),
                Bad(torch.tensor([1, 2])),
            ],
            "prediction_type": one_of("epsilon", "v_prediction", bad=("sample", None, 3, [])),
        }
    ),
    "base_loss": Entry(
        {
            "predict": predict,
            "schedule": schedule,
            "x0": X,
            "noise": NOISE,
            "timesteps": times,
            "min_snr_gamma": real(5.0, -1, none=True),
        },
        finite_check,
        required=("noise", "timesteps"),
    ),
    "variation_regularizer": Entry(
        {
            "predict": lambda w: predict(w)[1:],
            "schedule": schedule,
            "x0": X,
            "noise": NOISE,
            "timesteps": times,
            "delta": DELTA,
            "a": constant,
            "method": one_of("finite_difference", "exact"),
        },
        finite_check,
        required=("noise", "timesteps"),
    ),
    "unit_directions": Entry(
        {
            "shape": one_of(
                (2, 3), [2, 3, 4, 4], bad=((), (2,), (2, 0), (-1, 2), (2.5, 2), None, 3, "ab", ("2", "3"), [None, 1])
            ),
            "generator": one_of(None, torch.Generator(), bad=(3, "x", [])),
        },
        finite_check,
    ),
    "RunningConstant": Entry({"weight": real(0.1, -1, 2), "reduce": one_of(lambda x: x, bad=(None, 3, "x"))}),
    "TrainConfig": Entry(
        {
            "steps": whole(3, 0, -1, None),
            "batch_size": whole(2, 0, None),
            "learning_rate": real(0.1, 0, -1),
            "rank": whole(2, -1, None),
            "mixed_precision": one_of("no", "fp16", bad=("half", None, 3)),
            "height": whole(64, 0, -8),
            "drop_prompt": real(0.5, 2, -1),
            "output_dir": one_of("runs", Path("runs"), bad=(None, 3, "a\0b")),
            "model": text,
            "seed": whole(3, None),
            "gradient_checkpointing": flag,
            "min_snr_gamma": real(5.0, -1, none=True),
            "max_grad_norm": real(1.0, -1, 0),
        }
    ),
    "train": Entry({"config": config, "on_step": one_of(None, bad=(3, "x", []))}, file_check, weight=0.15),
    "sample": Entry(
        {
            "pipe": pipe,
            "prompt": prompt,
            "latents": noise,
            "num_inference_steps": STEPS,
            "guidance_scale": GUIDANCE,
            "negative_prompt": prompt,
        },
        last_finite_check,
        lambda *a, **k: run(sn.sample(*a, **k)),
    ),
    "generate": Entry(
        {
            "pipe": pipe,
            "prompt": prompt,
            "seeds": seeds,
            "num_inference_steps": STEPS,
            "guidance_scale": GUIDANCE,
            "negative_prompt": texts,
            "batch_size": BATCH,
            "progress": flag,
        },
        pictures_check(64, 64, count=1),
    ),
    "finish": Entry(
        {
            "pipe": pipe,
            "steps": lambda w: [
                Good(sn.sample(w.pipe, "a", num_inference_steps=1)),
                Bad([]),
                Bad(None),
                Bad(3),
                Bad([3]),
                Bad("ab"),
                Bad(iter([])),
            ],
            "progress": flag,
        },
        pictures_check(64, 64),
    ),
    "Step": Entry(
        {
            "index": only(0),
            "timestep": only(1),
            "latents": only(torch.zeros(1, 4, 8, 8)),
            "x0": only(torch.zeros(1, 4, 8, 8)),
        }
    ),
    "interpolate": Entry(
        {
            "pipe": pipe,
            "a": ends,
            "b": only(4),
            "etas": lambda w: [*etas(w), Good(3), Bad(0), Bad(-1), Bad(2.5), Bad("3"), Bad(True)],
            "prompt": lambda w: [Good(None), *(v for v in text(w) if v.value is not None)],
            "batch_size": BATCH,
            "num_inference_steps": only(3),
            "guidance_scale": only(1.0),
        },
        pictures_check(64, 64, count=3),
        lambda *a, **k: run(sn.interpolate(*a, **k)),
        required=("etas", "num_inference_steps", "guidance_scale"),
    ),
    "coarse_to_fine": Entry({"count": whole(5, 0, 1, -1, None)}),
    "ddim_invert": Entry(
        {
            "pipe": pipe,
            "images": picture,
            "prompt": texts,
            "num_inference_steps": STEPS,
            "fixed_point_steps": whole(1, -1, None),
            "height": size,
            "width": size,
            "cache": cache,
            "progress": flag,
        },
        inversion_check,
    ),
    "null_text_invert": Entry(
        {
            "pipe": pipe,
            "images": picture,
            "prompt": texts,
            "guidance_scale": real(3.0, 1.0, 0),
            "num_inference_steps": STEPS,
            "inner_steps": whole(1, -1, None),
            "shared": flag,
            "start": one_of("empty", "prompt"),
            "tolerance": real(1e-3, -1),
            "height": size,
            "cache": cache,
            **QUIET,
        },
        inversion_check,
        required=("prompt", "guidance_scale", "num_inference_steps", "inner_steps"),
    ),
    "reconstruct": Entry(
        {"pipe": lambda w: [*pipe(w), Bad(w.plain)], "inversion": inversion, "progress": flag},
        pictures_check(64, 64, count=1),
    ),
    "Inversion": Entry(
        {
            "file": lambda w: [
                Good(w.folder / "inversion.safetensors"),
                *(
                    Bad(v)
                    for v in (
                        None,
                        3,
                        w.folder,
                        w.folder / "nowhere",
                        w.lora,
                        w.file,
                        w.folder / "cut.safetensors",
                        w.folder / "pickle.safetensors",
                        "",
                        "a\0b",
                    )
                ),
            ],
            "pipe": lambda w: [Good(None), Good(w.pipe), Bad(w.plain), Bad(3), Bad("x")],
            "num_inference_steps": lambda w: [Good(None), Good(3), Bad(4), Bad("3"), Bad(2.5)],
        },
        inversion_check,
        sn.Inversion.load,
    ),
    "edit_text": Entry(
        {
            "pipe": pipe,
            "inversion": inversion,
            "target_prompt": lambda w: [
                Good("a red house"),
                Alike(["a red house"], "a red house"),
                *(Bad(v) for v in ("", "a house", None, 3, [], ["a", "b"], b"a", [3])),
            ],
            "switch": real(0.5, -1, 2, none=True),
            "method": one_of("switch", "attention", "sdedit"),
            "layout_switch": real(0.3, -1, 2),
            "guidance_scale": GUIDANCE,
            "seed": seeds,
            "lend_padding": flag,
        },
        last_finite_check,
        lambda *a, **k: run(sn.edit_text(*a, **k)),
    ),
    "word_map": Entry(
        {
            "pipe": pipe,
            "inversion": inversion,
            "word": one_of("house", "a", bad=("", "zebra", None, 3, ["house"], b"a")),
            "every": whole(2, 0, -1, None),
        },
        pictures_check(8, 8, count=1),
    ),
    "drag": Entry(
        {
            "pipe": pipe,
            "image": own_size,
            "prompt": text,
            "handles": points((20, 30)),
            "targets": points((44, 31)),
            "mask": mask,
            "options": options,
            "guidance_scale": real(1.0, 0.5, 3.0),
            "height": size,
            "frames": whole(2, 1, -1, None),
            **QUIET,
            "callback": one_of(None, lambda n, left: None, bad=(3, "x")),
        },
        lambda r, g, w: pictures_check(64, 64)([r.picture, *r.frames], g, w),
        required=("options",),
    ),
    "Dragged": Entry({}, call=lambda: sn.Dragged),
    "DragOptions": Entry(
        {
            "num_inference_steps": whole(3, 0, -1, None),
            "strength": real(0.7, 0, 2),
            "max_steps": whole(2, -1, None),
            "learning_rate": real(0.1, 0, -1),
            "blocks": one_of((-1,), [0, 1], bad=((), None, 3, "ab", (1.5,), ("a",), (True,))),
            "radius": real(3.0, none=True),
            "standardize": flag,
            "wanted": one_of("start", "now", bad=("x", None, 3)),
            "follow": real(0.5, -1, 2),
            "keep": one_of("exact", "penalty"),
            "lora_steps": whole(1, -1, None),
            "lora_rank": whole(2, 0, -1, None),
            "seed": whole(3, 2**64, None),
            "reference_layer": whole(1, -1),
        },
        call=drag_options,
    ),
    "DRAG_DIFFUSION": Entry({}, call=lambda: sn.DRAG_DIFFUSION),
    "point_map": Entry(
        {
            "pipe": pipe,
            "inversion": inversion,
            "point": one_of(
                (20, 30),
                [20.5, 30],
                np.array([20, 30]),
                bad=(
                    (-1, 3),
                    (1e9, 1),
                    (1,),
                    (1, 2, 3),
                    None,
                    "ab",
                    3,
                    (None, 1),
                    (float("nan"), 1),
                    ("1", "2"),
                    [],
                    {},
                ),
            ),
            "strength": real(0.5, 0, 2, -1),
            "blocks": one_of((-1,), [0, 1], bad=((9,), (), None, "ab", (1.5,), 3)),
        },
        finite_check,
    ),
    "istd": Entry(
        {
            "pipe": pipe,
            "prompts": lambda w: [*texts(w), Bad([])],
            "num_ratios": whole(3, 2, 0, -1, None),
            "guidance_scale": GUIDANCE,
            "num_inference_steps": STEPS,
            "seed": whole(3, 2**64, None),
            "pixel_range": one_of(
                (0, 1), [0, 255], bad=((1, 0), (0,), None, 3, "ab", (0, float("nan")), (0, 1, 2), ("0", "1"), [])
            ),
            "correction": whole(1, 2, -1, None),
            "batch_size": BATCH,
            "height": size,
            "results": lambda w: [
                Good(None),
                Good(w.new(".jsonl")),
                Bad(w.folder),
                Bad(3),
                Bad(w.file),
                Bad("a\0b"),
                Bad("/proc/x"),
            ],
            **QUIET,
        },
        lambda r, g, w: finite_check(r.distances, g, w),
        required=("num_ratios", "num_inference_steps"),
    ),
    "ISTD": Entry(
        {
            "distances": lambda w: [
                Good(torch.rand(2, 3)),
                *junk(),
                Bad(torch.rand(3, 3)),
                Bad(torch.rand(2)),
                Bad(torch.full((2, 3), torch.nan)),
                Bad(torch.ones(2, 3).long()),
            ],
            "prompts": only(("a", "b")),
        },
        lambda r, g, w: finite_check(r.deviations, g, w),
    ),
    "neighbour_distances": Entry(
        {"frames": row, "pixel_range": one_of((0, 1), (0.0, 255), bad=((0,), None, 3, "ab", (0, float("nan"))))},
        finite_check,
    ),
    "compare": Entry(
        {"candidates": candidates, "results": lambda w: [Good(None), Good(w.new()), Bad(3), Bad("a\0b")]},
        lambda r, g, w: finite_check(r.change("b")[0], g, w),
    ),
    "Comparison": Entry({}, call=lambda: sn.Comparison),
    "example_istd": Entry({"name": one_of("base", "smooth")}),
    "read_prompts": Entry(
        {
            "source": lambda w: [
                Good("postcard"),
                Good(w.folder / "notes.txt"),
                *(
                    Bad(v)
                    for v in (
                        None,
                        3,
                        "nowhere.txt",
                        w.folder,
                        w.folder / "binary.txt",
                        w.file,
                        b"x",
                        "",
                        "a\0b",
                        [],
                        "~nobody/x",
                    )
                ),
            ],
            "count": whole(2, 0, -1),
            "seed": whole(3, None),
        }
    ),
    "path_lengths": Entry(
        {
            "pipe": pipe,
            "prompts": lambda w: [*texts(w), Bad([])],
            "distances": lambda w: [
                Good(lambda a, b: (a - b).square().mean((1, 2, 3))),
                *(Bad(v) for v in (None, 3, "x", lambda a, b: None, lambda a, b: (a - b).mean())),
            ],
            "epsilon": real(0.1, 0, 1, -1),
            "guidance_scale": GUIDANCE,
            "num_inference_steps": STEPS,
            "seed": whole(3, 2**64, None),
            "batch_size": BATCH,
            **QUIET,
        },
        finite_check,
        required=("num_inference_steps",),
    ),
    "ReaderJudge": Entry(
        {"real_count": whole(4, 0, 1, -1, None), "style": one_of("plain", "film", bad=("x", None, 3, []))}
    ),
    "PhotoJudge": Entry(
        {
            "folder": lambda w: [
                Good(w.folder),
                *(Bad(v) for v in (None, 3, w.folder / "nowhere", w.file, "a\0b", [])),
            ],
            "size": whole(64, 0, None),
            "clip": text,
        }
    ),
    "reconstruction": Entry(
        {
            "images": lambda w: [
                Good([w.picture]),
                *(Bad(v) for v in ([], None, 3, "x", [None], [w.picture] * 2, [Image.new("RGB", (1, 1))])),
            ],
            "originals": lambda w: [Good([w.picture]), Good([w.pixels]), *(Bad(v) for v in ([], None, 3, [None]))],
            "lpips": flag,
        },
        finite_check,
    ),
    "MixingSlider": Entry(
        {
            "frames": frames,
            "etas": numbers,
            "labels": one_of(None, ["a", "b", "c"], bad=(3, ["a"], [])),
            "width": WIDTH,
            "interval": whole(100, -1, None),
            "axis": text,
        },
        call=waited(sn.MixingSlider),
    ),
    "BlendSlider": Entry(
        {
            "frames": lambda w: [
                Good({0.0: w.frames, 1.0: w.frames}),
                *(
                    Bad(v)
                    for v in (
                        {},
                        None,
                        3,
                        [],
                        w.frames,
                        {"a": w.frames},
                        {1.0: w.frames, 0.0: w.frames},
                        {float("nan"): w.frames},
                        {0.0: []},
                    )
                ),
            ],
            "etas": numbers,
            "width": WIDTH,
        },
        call=waited(sn.BlendSlider),
    ),
    "MixingPad": Entry(
        {
            "frames": lambda w: [
                Good(w.frames + w.frames[:1]),
                *(Bad(v) for v in ([], None, 3, w.frames, [None] * 4, "abcd", {})),
            ],
            "columns": whole(2, 0, 1, 3, -1),
            "corners": one_of(("a", "b", "c", "d"), bad=(("a",), None, 3, [])),
            "width": WIDTH,
        }
    ),
    "pad_weights": Entry({"rows": whole(3, 0, 1, -1, None), "columns": whole(3, 0, 1, -1)}, finite_check),
    "EditSlider": Entry(
        {
            "pipe": pipe,
            "picture": lambda w: [v for v in picture(w) if v.value is not w.folder][:20],
            "source_prompt": only("a house"),
            "target_prompt": one_of("a pine", bad=("", "a house", None, 3, [], b"x")),
            "switches": one_of([0.5], (0.5,), bad=([], None, ["a"], [2.0], 3)),
            "invert": only(lambda pipe, picture, prompt: sn.ddim_invert(pipe, picture, prompt, 2, progress=False)),
            "width": WIDTH,
        },
        call=waited(sn.EditSlider),
        weight=0.5,
        required=("switches", "invert"),
    ),
    "DragCanvas": Entry(
        {
            "picture": lambda w: [
                Good(w.picture),
                Good(w.file),
                Good(w.pixels),
                *(v for v in picture(w) if isinstance(v, Bad)),
            ],
            "handles": points((20, 30)),
            "targets": points((44, 31)),
            "mask": lambda w: [v for v in mask(w) if not isinstance(v.value, str)],
            "width": WIDTH,
        },
        required=("handles", "targets"),
    ),
    "DragEditor": Entry(
        {
            "pipe": pipe,
            "picture": lambda w: [Good(w.picture), *(v for v in picture(w) if isinstance(v, Bad))],
            "prompt": text,
            "handles": points((20, 30)),
            "targets": points((44, 31)),
            "options": options,
            "frames": whole(2, 1, 0, -1, None),
            "width": WIDTH,
        },
        call=lambda *a, **k: waited(lambda *a, **k: sn.DragEditor(*a, **k).drag())(*a, **k),
        weight=0.4,
        required=("handles", "targets", "options"),
    ),
    "PictureUpload": Entry({"default": pil}),
    "LivePlot": Entry({"width": WIDTH}, call=lambda *a, **k: sn.LivePlot("loss", *a, **k).picture(), check=nothing),
    "WalkSlider": Entry({"walks": walks, "width": WIDTH}),
    "difference": Entry({"a": pil, "b": pil, "gain": real(2.0, -1)}, picture_check),
    "mark": Entry(
        {
            "picture": pil,
            "handles": lambda w: [
                *points((20, 30))(w)[:5],
                Good([]),
                Bad(None),
                Bad(3),
                Bad([(1,)]),
                Bad([("a", 1)]),
                Bad([(float("nan"), 1)]),
            ],
            "paths": one_of([], [[(1, 2), (3, 4)]], bad=(3, [3], None, [[(1,)]], "ab")),
            "mask": lambda w: [
                Good(None),
                Good(Image.new("L", (64, 64))),
                Bad(3),
                Bad("x"),
                Bad(Image.new("L", (3, 3))),
            ],
            "width": WIDTH,
        },
        picture_check,
    ),
    "strip": Entry(
        {"frames": frames, "labels": one_of(None, ["a", "b", "c"], [1, 2, 3], bad=(["a"], 3, [])), "size": WIDTH},
        picture_check,
    ),
}


def ours(error: BaseException) -> bool:
    """Whether an error is raised by a `raise` of the package itself, and of a kind that it says it raises."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno).strip()
    return (
        last.filename.startswith(PACKAGE)
        and line.startswith("raise ")
        and isinstance(error, OURS)
        and len(str(error)) > 15
    )


def attempt(name: str, entry: Entry, w: World, rng: random.Random) -> str | None:
    """One call; in words, what is wrong with how it ended."""
    pools = {key: kind(w) for key, kind in entry.arguments.items()}
    function = entry.call or getattr(sn, name)
    picked = {key: 0 for key in pools if rng.random() < 0.6 or key in entry.required or _needed(name, key)}
    for key in rng.sample(list(pools), k=min(len(pools), rng.choice((0, 1, 1, 1, 2)))):
        picked[key] = rng.randrange(len(pools[key]))
    chosen = {key: pools[key][number] for key, number in picked.items()}
    given = {key: value.value for key, value in chosen.items()}
    said = f"{name}({', '.join(f'{k}={_short(v.value)}' for k, v in chosen.items() if picked[k])})"
    bad, odd = (any(isinstance(v, kind) for v in chosen.values()) for kind in (Bad, Odd))
    try:
        result = function(**given)
    except BaseException as error:
        if not ours(error):
            return f"{said}: not our error\n{''.join(traceback.format_exception(error)[-14:])}"
        return None if bad or odd else f"{said}: good arguments were refused: {type(error).__name__}: {error}"
    if bad:
        return f"{said}: was not refused, gave {_short(result)}"
    try:
        entry.check(result, given, w)
        if any(isinstance(v, Alike) for v in chosen.values()):
            # Made anew, as iterators are used up.
            again = {key: entry.arguments[key](w)[number] for key, number in picked.items()}
            plain = {key: value.plain if isinstance(value, Alike) else value.value for key, value in again.items()}
            if bits(function(**plain)) != bits(result):
                return f"{said}: another result than that of the plain call"
    except AssertionError as error:
        return f"{said}: {error}"
    return None


def _needed(name: str, key: str) -> bool:
    target = getattr(sn, name)
    target = target.load if name == "Inversion" else target
    parameter = inspect.signature(target).parameters.get(key)
    return parameter is not None and parameter.default is parameter.empty


def _short(value: object) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{type(value).__name__}{tuple(value.shape)}{value.dtype}"
    text = repr(value)
    return text if len(text) < 90 else text[:87] + "…"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names, with commas")
    parser.add_argument("--keep", action="store_true", help="go on after the first fault")
    args = parser.parse_args()
    os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rng, faults, count = random.Random(args.seed), {}, 0
    names = args.only.split(",") if args.only else list(TABLE)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        w = World(Path(folder))
        before = {whole: state(w.pipe, whole) for whole in (False, True)}
        end = time.monotonic() + args.seconds
        while time.monotonic() < end:
            name = names[count] if count < len(names) else rng.choices(names, [TABLE[n].weight for n in names])[0]
            count += 1
            fault = attempt(name, TABLE[name], w, rng)
            whole = count % 10 == 0
            if fault is None and state(w.pipe, whole) != before[whole]:
                fault = f"{name}: the pipeline is not what it was"
            if fault is not None:
                faults.setdefault(fault.splitlines()[0][:70], fault)
                if not args.keep:
                    break
    print(f"{count} calls, {len(faults)} faults", *faults.values(), sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
