"""What the command line does with pictures: load a model, call the function of the package, write a file."""

from pathlib import Path

from smoothnb.inversion import ddim_invert
from smoothnb.models import load_pipeline
from smoothnb.null_text import null_text_invert
from smoothnb.sampling import finish
from smoothnb.text_editing import edit_text


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
    output.parent.mkdir(parents=True, exist_ok=True)
    found.save(output)
    print(f"wrote {output}")
