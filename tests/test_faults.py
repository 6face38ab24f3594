"""Interrupts, errors and too little memory in the middle of everything: the pipeline draws what it drew before."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import build_tiny_pipeline, pipeline_state

import smoothnb as sn
from smoothnb.models.lora_files import Lora, Pair

QUICK = sn.DragOptions(num_inference_steps=4, max_steps=2, lora_steps=2)


def random_lora(unet) -> Lora:
    generator = torch.Generator().manual_seed(0)
    modules = {name: m for name, m in unet.named_modules() if name.endswith(("to_q", "to_v"))}

    def draw(*shape: int):
        return torch.randn(shape, generator=generator) * 0.3

    return Lora({name: Pair(draw(2, m.in_features), draw(m.out_features, 2), 2.0) for name, m in modules.items()})


@pytest.fixture(scope="module")
def pipe():
    """A tiny pipeline with a smooth LoRA at half its strength."""
    pipe = build_tiny_pipeline()
    sn.import_lora(pipe, random_lora(pipe.unet))
    sn.set_smoothness(pipe, 0.5)
    return pipe


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def inversion(pipe, picture):
    return sn.ddim_invert(pipe, picture, "a house", 4, progress=False)


CALLS = {
    "generate": lambda pipe, p, i: sn.generate(pipe, "a", [1, 2], num_inference_steps=4, batch_size=1, progress=False),
    "sample": lambda pipe, p, i: list(sn.sample(pipe, "a", num_inference_steps=6)),
    "interpolate": lambda pipe, p, i: list(sn.interpolate(pipe, 1, i, 5, batch_size=2)),
    "ddim_invert": lambda pipe, p, i: sn.ddim_invert(pipe, p, "a", 4, fixed_point_steps=1, progress=False),
    "edit_text switch": lambda pipe, p, i: list(sn.edit_text(pipe, i, "a red house")),
    "edit_text attention": lambda pipe, p, i: list(sn.edit_text(pipe, i, "a red house", method="attention")),
    "edit_text sdedit": lambda pipe, p, i: list(sn.edit_text(pipe, i, "a red house", 1.0, method="sdedit")),
    "word_map": lambda pipe, p, i: sn.word_map(pipe, i, "house", every=1),
    "drag": lambda pipe, p, i: sn.drag(pipe, p, "a", [(20, 30)], [(44, 30)], options=QUICK, progress=False),
    "point_map": lambda pipe, p, i: sn.point_map(pipe, i, (20, 30)),
    "istd": lambda pipe, p, i: sn.istd(pipe, ["a", "b"], 3, num_inference_steps=2, batch_size=3, progress=False),
    "path_lengths": lambda pipe, p, i: sn.path_lengths(
        pipe, ["a", "b"], lambda a, b: (a - b).square().mean((1, 2, 3)), num_inference_steps=2, batch_size=2,
        progress=False,
    ),
    "compare": lambda pipe, p, i: sn.compare(
        {"a": (pipe, 0.0), "b": (pipe, 1.0)}, ["a"], num_ratios=3, num_inference_steps=2, progress=False
    ),
    "null_text_invert": lambda pipe, p, i: sn.null_text_invert(pipe, p, "a", 3.0, 4, inner_steps=2, progress=False),
}  # fmt: skip


def failing(unet, monkeypatch, number: int, error: BaseException) -> list[int]:
    """Has the UNet fail at its n-th call from now on."""
    calls, forward = [], unet.forward

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            raise error
        return forward(*args, **kwargs)

    monkeypatch.setattr(unet, "forward", call)
    return calls


@pytest.mark.filterwarnings("ignore:interrupted")  # what null-text inversion and drags do with Ctrl-C
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_or_error_anywhere_leaves_the_pipeline_as_it_was(pipe, picture, inversion, monkeypatch, name):
    before = pipeline_state(pipe)
    for number, kind in ((1, RuntimeError), (2, KeyboardInterrupt), (4, RuntimeError), (7, KeyboardInterrupt)):
        error = kind("a fault")
        with monkeypatch.context() as patch:
            calls = failing(pipe.unet, patch, number, error)
            with contextlib.suppress(KeyboardInterrupt, RuntimeError):
                CALLS[name](pipe, picture, inversion)
        assert calls
        assert pipeline_state(pipe) == before, f"after {error!r} in pass {number}"


@pytest.mark.parametrize("name", CALLS)
def test_too_little_memory_names_what_to_lower(pipe, picture, inversion, monkeypatch, name):
    before = pipeline_state(pipe)
    for number in (1, 2):
        with monkeypatch.context() as patch:
            calls = failing(pipe.unet, patch, number, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
            if name == "interpolate" and number == 1:
                # It halves its batches, and goes on.
                assert len(CALLS[name](pipe, picture, inversion)) == 5
                continue
            if name == "interpolate":
                patch.setattr(pipe.unet, "forward", lambda *_, **__: _raise(torch.OutOfMemoryError("CUDA")))
            try:
                CALLS[name](pipe, picture, inversion)
            except torch.OutOfMemoryError as error:
                said = str(error)
                assert "out of memory while" in said and (": give " in said or ": set " in said), said
                assert said.count("torch says: CUDA") == 1
            else:
                assert len(calls) < number
        assert pipeline_state(pipe) == before


def _raise(error):
    raise error


@pytest.mark.parametrize("message", ["DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory"])
def test_other_devices_that_run_out_of_memory_say_the_same(pipe, monkeypatch, message):
    failing(pipe.unet, monkeypatch, 1, RuntimeError(message))
    with pytest.raises(torch.OutOfMemoryError, match=f"smaller batch_size; .*dtype.*torch says: {message}"):
        sn.generate(pipe, "a", num_inference_steps=1, progress=False)


def test_training_out_of_memory_names_its_settings(tiny_folder, tmp_path, monkeypatch):
    config = sn.TrainConfig(model=str(tiny_folder), output_dir=tmp_path, steps=2, batch_size=1, rank=1)
    error = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr("smoothnb.training.trainer.Trainer.advance", lambda self: _raise(error))
    with pytest.raises(torch.OutOfMemoryError, match=r"while training: give a smaller batch_size.*gradient_accumul"):
        sn.train(config)


def test_a_closed_iterator_leaves_nothing_behind(pipe, inversion):
    before = pipeline_state(pipe)
    for steps in (
        sn.sample(pipe, "a", num_inference_steps=4),
        sn.edit_text(pipe, inversion, "a red house", method="attention"),
        sn.interpolate(pipe, 1, 2, 5, batch_size=1),
    ):
        next(steps)
        steps.close()
    assert pipeline_state(pipe) == before


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault")])
def test_a_lora_that_is_interrupted_is_not_attached(monkeypatch, number, error):
    pipe = build_tiny_pipeline()
    before = pipeline_state(pipe)
    with monkeypatch.context() as patch:
        failing(pipe.unet, patch, number, error)
        with pytest.raises(type(error)):
            sn.import_lora(pipe, random_lora(pipe.unet))
    assert pipeline_state(pipe) == before


def test_meanwhile_smoothness_leaves_other_adapters_at_work(monkeypatch):
    from peft import LoraConfig

    from smoothnb.models.lora import blended

    pipe = build_tiny_pipeline()
    sn.import_lora(pipe, random_lora(pipe.unet))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        pipe.unet.add_adapter(LoraConfig(r=1, target_modules=["to_k"], init_lora_weights=False), adapter_name="other")
    pipe.set_adapters(["smooth", "other"], [0.5, 0.7])
    before = pipeline_state(pipe)
    with blended(pipe, 1.0):
        pass
    assert pipeline_state(pipe) == before


@pytest.mark.parametrize("damage", ["cut", "other", "nan"])
def test_damaged_files_of_a_cache_are_named_and_replaced(tiny_pipe, picture, tmp_path, damage):
    from safetensors.torch import save_file

    options = dict(num_inference_steps=2, inner_steps=1, cache=tmp_path, progress=False)
    first = sn.null_text_invert(tiny_pipe, picture, "a house", 3.0, **options)
    (file,) = (f for f in tmp_path.iterdir() if "series" in load_file(f))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif damage == "other":
        save_file({"trajectory": torch.ones(2)}, file)
    else:
        save_file(load_file(file) | {"series": torch.full((2, 1, 32, 16), torch.nan)}, file)
    with pytest.warns(UserWarning, match="ignored") as said:
        again = sn.null_text_invert(tiny_pipe, picture, "a house", 3.0, **options)
    assert len(said) == 1 and torch.equal(again.series, first.series)
    assert sn.Inversion.load(file, tiny_pipe).settings == first.settings


FULL = """
import resource, signal, warnings
from pathlib import Path
import numpy as np
import torch
from PIL import Image
import smoothnb as sn
from smoothnb.training.checkpoints import save_atomically
from smoothnb.cli.editing import _write
from smoothnb.models.deltas import save_difference

model, folder = {model!r}, Path({folder!r})
pipe = sn.load_pipeline(model, "cpu")
picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
inversion = sn.ddim_invert(pipe, picture, "a house", 20, progress=False)
from peft import LoraConfig
pipe.unet.add_adapter(LoraConfig(r=8, target_modules=["to_q"], init_lora_weights=False), adapter_name="smooth")
lora = sn.lora_of(pipe)
slider = sn.MixingSlider([picture, picture.rotate(90), picture])
pad = sn.MixingPad([picture] * 4)
other = sn.load_pipeline(model, "cpu")
tried = {{
    "whole.png": lambda f: _write(picture, f),
    "inversion.safetensors": inversion.save,
    "lora.safetensors": lambda f: sn.export_lora(lora, f),
    "a.pt": lambda f: save_atomically({{"a": torch.rand(9000)}}, f),
    "difference.safetensors": lambda f: save_difference(other, other, folder, "tiny"),
    "s.gif": slider.save,
    "pad.png": pad.save,
}}
for name in tried:
    (folder / name).write_bytes(b"before")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for name, save in tried.items():
    try:
        save(folder / name)
    except OSError as error:
        assert f"cannot write {{folder / name}}" in str(error) and "Free disk space" in str(error), error
    else:
        raise SystemExit(name + " was written")
    assert (folder / name).read_bytes() == b"before", name
assert sorted(f.name for f in folder.iterdir()) == sorted(tried), list(folder.iterdir())
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = sn.ddim_invert(other, picture, "a house", 20, cache=folder / "cache", progress=False)
assert len(found.trajectory) == 21 and any("could not be stored in the cache" in str(w.message) for w in said)
assert not list((folder / "cache").iterdir())
print("all refused")
"""


def test_a_full_disk_loses_nothing_and_says_which_file(tiny_folder, tmp_path):
    code = FULL.format(model=str(tiny_folder), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{done.stdout.strip()}\n" and "all refused" in done.stdout, done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_named(tmp_path, inversion):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=rf"cannot write {tmp_path}/a\.safetensors.*may be written to"):
        inversion.save(tmp_path / "a.safetensors")


def test_a_path_that_is_a_folder_or_lies_below_a_file_is_named(tmp_path, inversion):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "a.safetensors"):
        with pytest.raises(OSError, match="cannot write"):
            inversion.save(path)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_a_drag_that_is_killed_leaves_no_half_picture(tiny_folder, tmp_path, picture):
    picture.save(tmp_path / "in.png")
    words = ["-m", "smoothnb", "drag", "--picture", tmp_path / "in.png", "--prompt", "a", "--handles", "20", "30"]
    words += ["--targets", "44", "30", "--model", tiny_folder, "--output", tmp_path / "out.png", "--max-steps", "500"]
    killed = subprocess.Popen(
        [sys.executable, *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said = ""
    while "dragging" not in said and killed.poll() is None:
        said += killed.stderr.read(1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, said
    assert [file.name for file in tmp_path.iterdir()] == ["in.png"]


def test_damaged_checkpoints_give_way_to_older_ones(tiny_folder, tmp_path):
    config = sn.TrainConfig(
        model=str(tiny_folder), output_dir=tmp_path, steps=3, batch_size=1, rank=1, checkpoint_every=1,
        keep_checkpoints=3,
    )  # fmt: skip
    whole = load_file(sn.train(config))
    newest, older = (tmp_path / f"checkpoint-00000{i}.pt" for i in (3, 2))
    newest.write_bytes(newest.read_bytes()[:-300])
    older.write_bytes(pickle.dumps(Path("anything")))
    seen = []
    with pytest.warns(UserWarning, match="damaged or not a checkpoint.*Resuming from an older one") as said:
        again = load_file(sn.train(config, on_step=seen.append))
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert [progress.step for progress in seen] == [2, 3]
    assert [warning.filename for warning in said] == [__file__, __file__]
    for file, junk in zip(sorted(tmp_path.glob("*.pt")), (b"\x80\x04junk", b"", b"\x80"), strict=True):
        file.write_bytes(junk)
    with (
        pytest.warns(UserWarning, match="older one"),
        pytest.raises(ValueError, match=r"checkpoint-00000\d\.pt is damaged.*There is no older one"),
    ):
        sn.train(replace(config, steps=4))
