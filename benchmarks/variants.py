"""The counterpart of the paper's Table 3: weight of the regularizer, rank of the LoRA, and a full fine-tune.

    python benchmarks/variants.py --output docs/results/smooth/variants

Each variant is trained for the same number of steps (the last one for twice as many: it takes about as long as
regularizing at every step), unless runs/variants has it already, and measured by `report`.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from diffusers import UNet2DConditionModel

from smoothnb.evaluation import ReaderJudge, read_prompts
from smoothnb.evaluation.report import report
from smoothnb.models.load import load_pipeline
from smoothnb.training import TrainConfig, train


def trained(folder: Path):
    """The base pipeline with what `train` wrote: a LoRA, or a whole UNet."""
    if not (folder / "unet").is_dir():
        return load_pipeline("postcard", smooth=folder)
    pipe = load_pipeline("postcard")
    pipe.unet = UNet2DConditionModel.from_pretrained(folder / "unet").to(pipe.device, pipe.unet.dtype)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training-steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16, help="of training")
    parser.add_argument("--runs", type=Path, default=Path("runs/variants"))
    parser.add_argument("--pictures", type=int, default=128, help="for FID and adherence")
    parser.add_argument("--walks", type=int, default=16, help="for ISTD, eleven pictures each")
    parser.add_argument("--steps", type=int, default=15, help="of sampling")
    parser.add_argument("--output", type=Path, required=True, help="folder for report.md, report.json and figures")
    options = parser.parse_args()
    usual = TrainConfig(
        steps=options.training_steps, batch_size=options.batch_size, learning_rate=1e-3, noise_offset=0.1
    )  # fmt: skip
    variants = {
        "lambda 1, rank 8": usual,
        "lambda 0": replace(usual, regularizer_weight=0.0),
        "lambda 0.1": replace(usual, regularizer_weight=0.1),
        "lambda 10": replace(usual, regularizer_weight=10.0),
        "rank 4": replace(usual, rank=4),
        "rank 16": replace(usual, rank=16),
        "full fine-tune": replace(usual, rank=0, learning_rate=1e-4),
        "every 4th step": replace(usual, regularize_every=4),
        "every 4th step, as long": replace(usual, regularize_every=4, steps=2 * usual.steps),
    }
    candidates: dict[str, Callable] = {"base": partial(load_pipeline, "postcard")}
    for name, config in variants.items():
        kind = f"lambda{config.regularizer_weight:g}-rank{config.rank}-every{config.regularize_every}"
        folder = options.runs / f"{kind}-steps{config.steps}"
        train(replace(config, output_dir=folder))
        candidates[name] = partial(trained, folder)
    found = report(
        candidates, read_prompts("postcard", options.pictures), ReaderJudge(4 * options.pictures), options.output,
        num_inference_steps=options.steps, num_walks=options.walks, num_path_lengths=0,
    )  # fmt: skip
    print(found.table())


if __name__ == "__main__":
    main()
