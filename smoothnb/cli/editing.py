"""Commands that edit pictures and convert models."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from smoothnb import dragging
from smoothnb._utils.files import expanded
from smoothnb.dragging import DRAG_DIFFUSION, DragOptions
from smoothnb.editing.edit import edit_text
from smoothnb.images import save_picture
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.inversion.null_text import null_text_invert
from smoothnb.models import deltas
from smoothnb.models.load import load_pipeline
from smoothnb.models.lora import check_fits
from smoothnb.models.lora_files import Form, export_lora, read_lora
from smoothnb.sampling import finish


def edit(
    picture: Path,
    prompt: str,
    target: str,
    output: Path = Path("edited.png"),
    model: str = "postcard",
    smooth: bool = False,
    lora: Path | None = None,
    null_text: bool = False,
    method: str = "attention",
    switch: float | None = None,
    blend: tuple[str, ...] = (),
    guidance_scale: float | None = None,
    steps: int = 50,
) -> None:
    """Edits a picture by text.

    Args:
        picture: File of the picture.
        prompt: A description of the picture.
        target: A description of the edited picture.
        output: File for the edited picture.
        model: A model that comes with smoothnb, a folder, or an id on the Hugging Face hub.
        smooth: Whether to use the smooth LoRA that comes with the model.
        lora: A smooth LoRA of your own, folder or file.
        null_text: Whether to use null-text inversion instead of DDIM inversion.
        method: switch, attention or sdedit, see `smoothnb.edit_text`.
        switch: In [0, 1]: the fraction of the sampling that is free to change.
        blend: For attention: phrases to whose region the edit is confined, such as "red house".
        guidance_scale: w, at least 1.
        steps: Number of sampling steps.
    """
    pipe = load_pipeline(model, smooth=lora or smooth)
    invert = null_text_invert if null_text else ddim_invert
    inversion = invert(pipe, picture, prompt, num_inference_steps=steps, fixed_point_steps=0 if null_text else 3)
    edited = edit_text(pipe, inversion, target, switch, method, blend=blend, guidance_scale=guidance_scale)
    (found,) = finish(pipe, edited)
    _write(found, output)


def drag(
    picture: Path,
    prompt: str,
    handles: tuple[tuple[float, float], ...],
    targets: tuple[tuple[float, float], ...],
    mask: Path | None = None,
    output: Path = Path("dragged.png"),
    model: str = "postcard",
    smooth: bool = False,
    lora: Path | None = None,
    published: bool = False,
    lora_steps: int | None = None,
    max_steps: int | None = None,
) -> None:
    """Drags points of a picture to target positions.

    Args:
        picture: File of the picture.
        prompt: A description of the picture.
        handles: Points to drag, x and y in pixels of the picture: 40 70 for one, 40 70 90 60 for two.
        targets: One target for each handle.
        mask: File of a mask of the same size, white and opaque where the picture may change.
        output: File for the dragged picture.
        model: A model that comes with smoothnb, a folder, or an id on the Hugging Face hub.
        smooth: Whether to use the smooth LoRA that comes with the model.
        lora: A smooth LoRA of your own, folder or file.
        published: Whether to use the published settings of DragDiffusion.
        lora_steps: Training steps of a LoRA of the picture.
        max_steps: Maximum number of optimization steps.
    """
    pipe = load_pipeline(model, smooth=lora or smooth)
    given = {"lora_steps": lora_steps, "max_steps": max_steps}
    options = replace(
        DRAG_DIFFUSION if published else DragOptions(), **{name: x for name, x in given.items() if x is not None}
    )
    found = dragging.drag(pipe, picture, prompt, handles, targets, mask, options)
    _write(found.picture, output)
    print(f"{found.reason} after {len(found.losses)} steps, {sum(found.seconds.values()):.1f} s")


def export(lora: Path, output: Path, format: Form = "diffusers", model: str | None = None) -> None:
    """Converts a LoRA to another format.

    Args:
        lora: A file or folder, in any format that `smoothnb.import_lora` reads.
        output: The .safetensors file to write.
        format: diffusers, or kohya, which ComfyUI and A1111 read.
        model: A model that the LoRA fits, needed to read kohya's format, whose keys do not distinguish dots from
            underscores.
    """
    unet = load_pipeline(model).unet if model else None
    found = read_lora(lora, dict(unet.named_modules()) if unet else ())
    if unet:
        check_fits(found, unet)
    print(f"{found}; wrote {export_lora(found, output, format)}")


def save_difference(tuned: Path, output: Path, base: str = "postcard") -> None:
    """Saves a fine-tuned model as its difference from its base, for data/.

    Args:
        tuned: Folder of the fine-tuned pipeline.
        output: Folder to write to.
        base: The base model.
    """
    file = deltas.save_difference(load_pipeline(base), load_pipeline(tuned), output, base)
    print(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB")


def _write(picture: Image.Image, output: Path) -> None:
    save_picture(picture, output)
    print(f"wrote {expanded(output)}")
