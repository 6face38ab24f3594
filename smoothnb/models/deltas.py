"""Fine-tuned models stored as quantized differences from their base, in a fraction of its size."""

from pathlib import Path

import torch
from torch import Tensor

from smoothnb._utils.files import atomic_write, expanded, open_weights, read_weights
from smoothnb._utils.pipeline import Pipeline

DIFFERENCE = "difference.safetensors"
BITS = {"unet": 4, "vae": 8}
"""Bits per weight delta. Decoder errors are visible; UNet errors barely."""
STEPS = torch.linspace(0.15, 0.75, 25, dtype=torch.float32)
"""Candidate steps for 4 bits, relative to a row's root mean square; 0.335 is optimal for normal numbers."""


def base_of(folder: Path) -> str:
    """Name of the base of the model in a folder."""
    with open_weights(folder / DIFFERENCE) as file:
        return file.metadata()["base"]


def save_difference(base, tuned, folder: Path, base_name: str) -> Path:
    """Saves the difference of a fine-tuned pipeline's UNet and autoencoder from their base.

    Matrices and kernels are quantized to 4 or 8 bits (`BITS`), with a step for each row; vectors are float16.

    `load_pipeline` reads the file from a folder in `data/`, given the name of the base there.
    """
    from safetensors.torch import save_file

    tensors, folder = {}, expanded(folder)
    for part, bits in BITS.items():
        before, after = getattr(base, part).state_dict(), getattr(tuned, part).state_dict()
        for name, weight in after.items():
            difference = weight.float().cpu() - before[name].float().cpu()
            if difference.ndim < 2:
                tensors[f"{part}.{name}"] = difference.half()
                continue
            tensors[f"{part}.{name}"], tensors[f"{part}.{name}.step"] = _rounded(difference.flatten(1), bits)
    with atomic_write(folder / DIFFERENCE) as partial:
        save_file(tensors, partial, {"format": "pt", "base": base_name})
    return folder / DIFFERENCE


@torch.no_grad()
def apply_difference(pipe: Pipeline, file: Path) -> None:
    """Turns a base pipeline into the one that was fine-tuned from it; ValueError if the file is another's."""
    tensors, _ = read_weights(file)
    for part in BITS:
        for name, weight in getattr(pipe, part).state_dict().items():
            codes, step = tensors.get(f"{part}.{name}", torch.empty(0)), tensors.get(f"{part}.{name}.step")
            if codes.dtype == torch.uint8:
                codes = torch.stack([codes & 15, codes >> 4], -1).flatten()[: weight.numel()].to(torch.int8) - 8
            if codes.numel() != weight.numel():
                raise ValueError(f"{file} does not belong to this pipeline: expected {part}.{name} in its size")
            difference = codes if step is None else codes.reshape(len(step), -1) * step.float()[:, None]
            weight.add_(difference.reshape(weight.shape).to(weight))


def _rounded(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes of a matrix, and the step of each row; a byte holds two codes of 4 bits."""
    if bits == 8:
        step = (rows.abs().amax(1) / 127).clamp(min=1e-7).half()
        return (rows / step.float()[:, None]).round().clamp(-127, 127).to(torch.int8), step
    tried = [(share * rows.square().mean(1).sqrt()).clamp(min=1e-7).half() for share in STEPS]
    codes = [(rows / step.float()[:, None]).round().clamp(-8, 7) for step in tried]
    errors = [(c * s.float()[:, None] - rows).square().sum(1) for c, s in zip(codes, tried, strict=True)]
    best = torch.stack(errors).argmin(0), torch.arange(len(rows))
    flat = (torch.stack(codes)[best] + 8).to(torch.uint8).flatten()
    flat = torch.cat([flat, flat.new_zeros(len(flat) % 2)])
    return flat[0::2] | flat[1::2] << 4, torch.stack(tried)[best]
