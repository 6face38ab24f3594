"""Every public function at Stable Diffusion 1.5's scale: that it runs, how long it takes, how much memory it needs.

    python benchmarks/sd15.py --output docs/results/sd15.json
    python benchmarks/sd15.py --dtype float32 --height 256 --width 384 --jobs null_text drag

The architecture has random weights: neither speed nor memory depends on them (nothing is downloaded; what is drawn is
noise). Each job has a process of its own. Sampling steps are few, as memory does not depend on their number.

On a GPU memory is what PyTorch's allocator held at most. On a CPU it is counted: all tensors that are alive, in the
precision that is asked for (see live_memory.py); beside it stands, for float32, what the process really took. Times of
half precision on a CPU say nothing and are left out.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from architectures import random_pipeline
from live_memory import LiveMemory
from PIL import Image

import smoothnb as sn
from smoothnb.evaluation.report import describe
from smoothnb.models.load import best_device
from smoothnb.models.lora import add_lora
from smoothnb.training.trainer import Trainer

SOURCE, TARGET = "a red house in a meadow", "a blue house in a meadow"
STEPS = 2
"""Of sampling, in all jobs but `train`."""


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Soft blobs of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def draw(pipe, size):
    (found,) = sn.generate(
        pipe, SOURCE, latents=sn.seeded_noise(pipe, [0], *size), num_inference_steps=STEPS, progress=False
    )
    return found.size


def autoencoder(pipe, size):
    return sn.decode(pipe, sn.encode(pipe, picture(size), *size))[0].size


def interpolate(pipe, size):
    a, b = sn.seeded_noise(pipe, [0, 1], *size)
    return len(list(sn.interpolate(pipe, a, b, 3, SOURCE, num_inference_steps=STEPS, batch_size=2)))


def invert(pipe, size):
    inversion = sn.ddim_invert(pipe, picture(size), SOURCE, STEPS, 1, *size, progress=False)
    return tuple(inversion.latents.shape)


def null_text(pipe, size):
    pictures = [picture(size, seed) for seed in (0, 1)]
    pair = sn.null_text_invert(
        pipe, pictures, SOURCE, num_inference_steps=STEPS, inner_steps=1, height=size[0], width=size[1], progress=False
    )
    return tuple(pair.series.shape)


def edit(pipe, size):
    inversion = sn.ddim_invert(pipe, picture(size), SOURCE, STEPS, height=size[0], width=size[1], progress=False)
    options = {"switch": {}, "attention": {"blend": ("house",)}, "sdedit": {}}
    for method, own in options.items():
        sn.finish(pipe, sn.edit_text(pipe, inversion, TARGET, 0.9, method, **own), progress=False)
    sn.word_map(pipe, inversion, "house", every=2)
    return list(options)


def drag(pipe, size, options=sn.DragOptions()):  # noqa: B008 (it is frozen)
    options = replace(options, num_inference_steps=STEPS, max_steps=1, lora_steps=min(options.lora_steps, 1))
    height, width = size
    found = sn.drag(
        pipe, picture(size), SOURCE, [(width / 3, height / 2)], [(width / 2, height / 2)], options=options,
        height=height, width=width, progress=False,
    )  # fmt: skip
    return found.picture.size, found.reason


def published_drag(pipe, size):
    return drag(pipe, size, sn.DRAG_DIFFUSION)


def features(pipe, size):
    inversion = sn.ddim_invert(pipe, picture(size), SOURCE, STEPS, height=size[0], width=size[1], progress=False)
    return tuple(sn.point_map(pipe, inversion, (size[1] / 2, size[0] / 2)).shape)


def measure(pipe, size):
    found = sn.istd(
        pipe, [SOURCE], 3, num_inference_steps=STEPS, height=size[0], width=size[1], batch_size=3, progress=False
    )
    lengths = sn.path_lengths(
        pipe, [SOURCE], lambda a, b: (a - b).square().flatten(1).sum(1), num_inference_steps=STEPS, height=size[0],
        width=size[1], progress=False,
    )  # fmt: skip
    return found.value > 0, len(lengths)


def lora(pipe, size):
    add_lora(pipe.unet, 8)
    for name, weight in pipe.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    found = sn.lora_of(pipe)
    pipe.delete_adapters("smooth")
    with tempfile.TemporaryDirectory() as folder:
        sn.import_lora(pipe, sn.export_lora(found, Path(folder) / "lora.safetensors", "kohya"))
    sn.set_smoothness(pipe, 0.5)
    return len(found.pairs)


JOBS: dict[str, Callable] = {
    "autoencoder": autoencoder, "generate": draw, "interpolate": interpolate, "ddim_invert": invert,
    "null_text": null_text, "edit_text": edit, "drag": drag, "drag_diffusion": published_drag, "point_map": features,
    "istd": measure, "lora": lora,
}  # fmt: skip
TRAINING = {"train": {}, "train_checkpointed": {"gradient_checkpointing": True}}
"""By name of the job: settings of a step with one picture."""
LIMIT_GB = 12
"""That training, null-text inversion of a pair and a drag are to stay below in half precision, for a card of 16 GB."""


def trainer_for(folder: Path, pipe, size: tuple[int, int], dtype: str, **settings) -> Trainer:
    """A training on one picture, with the model loaded."""
    pipe.save_pretrained(folder / "model")
    (folder / "pictures").mkdir()
    picture(size).save(folder / "pictures" / "one.png")
    (folder / "pictures" / "metadata.jsonl").write_text('{"file_name": "one.png", "text": "a house"}\n')
    # CPUs have no autocast to float16; bfloat16 takes as many bytes.
    half = "fp16" if dtype == "float16" and torch.cuda.is_available() else "bf16"
    precision = "no" if dtype == "float32" else half
    config = sn.TrainConfig(
        str(folder / "model"), folder / "run", str(folder / "pictures"), steps=1, batch_size=1,
        mixed_precision=precision, height=size[0], width=size[1], **settings,
    )  # fmt: skip
    return Trainer(config)


def step(trainer: Trainer, size: tuple[int, int]) -> str:
    """One step of it, and its checkpoint."""
    trainer.advance()
    return trainer.save().name


def resident_peak() -> float:
    """Of this process, in GB; Linux sets it back to what is in use now when asked to."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e6


def one(name: str, options) -> dict:
    """Runs one job, in this process."""
    device, dtype, size = best_device(), getattr(torch, options.dtype), (options.height, options.width)
    torch.manual_seed(0)
    counts = device.type == "cpu"
    subject, job = random_pipeline(device=device, dtype=dtype), JOBS.get(name, step)
    with tempfile.TemporaryDirectory() as folder:
        if name in TRAINING:
            subject = trainer_for(Path(folder), subject, size, options.dtype, **TRAINING[name])
        pipe = getattr(subject, "pipe", subject)
        weights = sum(p.nbytes for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()) / 1e9
        if counts:
            Path("/proc/self/clear_refs").write_text("5")
        else:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with LiveMemory() if counts else nullcontext() as live:
            result = job(subject, size)
        seconds = time.perf_counter() - start
    found = {"result": str(result), "weights_gb": weights}
    if not counts:
        return found | {"seconds": seconds, "gb": torch.cuda.max_memory_allocated() / 1e9}
    found["gb"] = weights + live.peak / 1e9
    if options.dtype == "float32":
        found |= {"seconds": seconds, "resident_gb": resident_peak()}
    return found


def pass_seconds(options) -> float:
    """Of the UNet, for one picture without guidance; median of five."""
    device, dtype = best_device(), getattr(torch, options.dtype)
    pipe = random_pipeline(device=device, dtype=dtype)
    x = sn.seeded_noise(pipe, list(range(options.batch_size)), options.height, options.width)
    embeds = torch.zeros(options.batch_size, 77, 768, device=device, dtype=dtype)
    times = []
    with torch.no_grad():
        for _ in range(6):
            start = time.perf_counter()
            pipe.unet(x, 500, embeds)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - start) / options.batch_size)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float16")
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--jobs", nargs="+", choices=[*JOBS, *TRAINING], default=[*JOBS, *TRAINING])
    parser.add_argument(
        "--passes", action="store_true", help="measure a pass of the UNet too, and project ISTD from it"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="of these passes")
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON; those of other jobs in it stay")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(one(options.alone, options)))
        return
    key = f"{options.dtype} {options.height}×{options.width}"
    figures = json.loads(options.output.read_text()) if options.output and options.output.is_file() else {}
    own = figures.setdefault(key, {})
    own["machine"] = describe(best_device())
    for name in options.jobs:
        words = [sys.executable, __file__, *sys.argv[1:], "--alone", name]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
        own[name] = json.loads(done.stdout.splitlines()[-1])
        print(key, name, own[name], flush=True)
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    if options.passes:
        seconds = pass_seconds(options)
        # With guidance a picture takes two passes a step.
        hours = 500 * 11 * 50 * 2 * seconds / 3600
        own["pass"] = {"seconds": seconds, "hours_for_istd_of_500_prompts": hours}
        print(key, own["pass"])
        if options.output:
            options.output.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    if "float32" not in key:
        over = [n for n in own if isinstance(own[n], dict) and own[n].get("gb", 0) > LIMIT_GB]
        print(f"above {LIMIT_GB} GB:", ", ".join(over) or "none")


if __name__ == "__main__":
    main()
