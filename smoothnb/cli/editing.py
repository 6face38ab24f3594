"""What the command line does: load a model, call the function of the package, write a file."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from smoothnb.dragging import DRAG_DIFFUSION, DragOptions
from smoothnb.dragging import drag as drag_points
from smoothnb.editing.edit import edit_text
from smoothnb.images import save_picture
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.inversion.null_text import null_text_invert
from smoothnb.models.deltas import save_difference as save_difference_of
from smoothnb.models.load import load_pipeline
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
    """Edits a picture in words.

    Args:
        picture: The picture's file.
        prompt: What is on it.
        target: What shall be on it.
        output: File for the edited picture.
        model: A model that comes with smoothnb, a folder, or an id on the Hugging Face hub.
        smooth: Whether to use the smooth LoRA that comes with the model.
        lora: A smooth LoRA of your own, folder or file.
        null_text: Whether to invert by null-text inversion, instead of DDIM inversion.
        method: switch, attention or sdedit, see `smoothnb.edit_text`.
        switch: How much of the sampling is let go, in [0, 1].
        blend: For attention: words whose place the edit is confined to, such as "red house".
        guidance_scale: At least 1.
        steps: Of the sampler.
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
    """Drags points of a picture to others.

    Args:
        picture: The picture's file.
        prompt: What is on it.
        handles: Points to drag, x and y in pixels of the picture: 40 70 for one, 40 70 90 60 for two.
        targets: Where to, one for each.
        mask: A picture's file of the same size, white and opaque where the picture may change.
        output: File for the dragged picture.
        model: A model that comes with smoothnb, a folder, or an id on the Hugging Face hub.
        smooth: Whether to use the smooth LoRA that comes with the model.
        lora: A smooth LoRA of your own, folder or file.
        published: Whether to use the settings of DragDiffusion as published.
        lora_steps: Of training a LoRA on the picture beforehand.
        max_steps: Of the optimization, at most.
    """
    pipe = load_pipeline(model, smooth=lora or smooth)
    given = {"lora_steps": lora_steps, "max_steps": max_steps}
    options = replace(
        DRAG_DIFFUSION if published else DragOptions(), **{name: x for name, x in given.items() if x is not None}
    )
    found = drag_points(pipe, picture, prompt, handles, targets, mask, options)
    _write(found.picture, output)
    print(f"{found.reason} after {len(found.losses)} steps, {sum(found.seconds.values()):.1f} s")


def export(lora: Path, output: Path, format: Form = "diffusers", model: str | None = None) -> None:
    """Writes a LoRA in another form.

    Args:
        lora: A file or folder, in any form that `smoothnb.import_lora` reads.
        output: The .safetensors file to write.
        format: diffusers, or kohya, which ComfyUI and A1111 read.
        model: A model that the LoRA fits; kohya's form needs it, as only the model tells its dots from underscores.
    """
    modules = [name for name, _ in load_pipeline(model).unet.named_modules()] if model else []
    found = read_lora(lora, modules)
    if found.form == "kohya" and format != "kohya" and not model:
        raise ValueError(f"{lora} is in kohya's form, which writes dots and underscores alike: name a --model it fits")
    print(f"{found}; wrote {export_lora(found, output, format)}")


def save_difference(tuned: Path, output: Path, base: str = "postcard") -> None:
    """Saves a fine-tuned model as its difference from another, for data/.

    Args:
        tuned: Folder of the fine-tuned pipeline.
        output: Folder to write to.
        base: The model that it was fine-tuned from.
    """
    file = save_difference_of(load_pipeline(base), load_pipeline(tuned), output, base)
    print(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB")


def _write(picture: Image.Image, output: Path) -> None:
    save_picture(picture, output)
    print(f"wrote {output}")
