"""The counterpart of the paper's Table 3: weight of the regularizer, rank of the LoRA, and a full fine-tune.

    python benchmarks/variants.py --output docs/results/smooth/variants

Each variant is trained for the same number of steps (the last one for twice as many: it takes about as long as
regularizing at every step), unless runs/variants has it already, and measured at once.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from smoothness import Results, load, measure, measuring_options, table

from smoothnb.training import TrainConfig, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training-steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--runs", type=Path, default=Path("runs/variants"))
    measuring_options(parser, 16, 128, 15)
    options = parser.parse_args()
    usual = TrainConfig(
        steps=options.training_steps, batch_size=options.batch_size, learning_rate=1e-3, noise_offset=0.1
    )  # fmt: skip
    variants = {
        "λ = 1, rank 8": usual,
        "λ = 0": replace(usual, regularizer_weight=0.0),
        "λ = 0.1": replace(usual, regularizer_weight=0.1),
        "λ = 10": replace(usual, regularizer_weight=10.0),
        "rank 4": replace(usual, rank=4),
        "rank 16": replace(usual, rank=16),
        "full fine-tune": replace(usual, rank=0, learning_rate=1e-4),
        "every 4th step": replace(usual, regularize_every=4),
        "every 4th step, as long": replace(usual, regularize_every=4, steps=2 * usual.steps),
    }
    names = ("walks", "pictures", "steps", "training_steps", "batch_size")
    settings = {key: getattr(options, key) for key in names}
    results = Results(options.output, settings)
    for name, config in {"base": None, **variants}.items():
        if name in results.models:
            continue
        folder = None
        if config is not None:
            kind = f"lambda{config.regularizer_weight:g}-rank{config.rank}-every{config.regularize_every}"
            folder = options.runs / f"{kind}-steps{config.steps}"
            train(replace(config, output_dir=folder))
        pipe = load(folder)
        results.add(name, measure(pipe, options.walks, options.pictures, options.steps), pipe.device)
    results.write()
    print(table(results.models))


if __name__ == "__main__":
    main()
