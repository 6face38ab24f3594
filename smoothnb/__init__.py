"""Smooth latent spaces in diffusion models: the functions behind the notebooks.

This file is the public list. Names are imported when they are first used, so that the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothnb.dragging import DRAG_DIFFUSION, Dragged, DragOptions, drag
    from smoothnb.evaluation import (
        ISTD,
        Comparison,
        PhotoJudge,
        ReaderJudge,
        compare,
        example_istd,
        istd,
        path_lengths,
        read_prompts,
        reconstruction,
    )
    from smoothnb.images import neighbour_distances
    from smoothnb.interpolation import coarse_to_fine, interpolate
    from smoothnb.inversion import Inversion, ddim_invert, reconstruct
    from smoothnb.latents import decode, encode, mix, seeded_noise, slerp
    from smoothnb.lora import import_lora, lora_of, set_smoothness
    from smoothnb.lora_files import Lora, export_lora
    from smoothnb.models import UnknownWordsWarning, load_pipeline
    from smoothnb.null_text import null_text_invert
    from smoothnb.objective import base_loss
    from smoothnb.postcards.pictures import example_picture
    from smoothnb.regularizer import RunningConstant, unit_directions, variation_regularizer
    from smoothnb.sampling import Step, finish, generate, sample
    from smoothnb.schedule import Schedule
    from smoothnb.text_editing import edit_text, word_map
    from smoothnb.training import TrainConfig, train
    from smoothnb.widgets import (
        BlendSlider,
        DragCanvas,
        DragEditor,
        EditSlider,
        LivePlot,
        MixingPad,
        MixingSlider,
        PictureUpload,
        WalkSlider,
        difference,
        pad_weights,
        strip,
    )

_HOME = {
    "slerp": "latents",
    "mix": "latents",
    "seeded_noise": "latents",
    "encode": "latents",
    "decode": "latents",
    "load_pipeline": "models",
    "UnknownWordsWarning": "models",
    "example_picture": "postcards.pictures",
    "import_lora": "lora",
    "lora_of": "lora",
    "export_lora": "lora_files",
    "Lora": "lora_files",
    "set_smoothness": "lora",
    "Schedule": "schedule",
    "base_loss": "objective",
    "variation_regularizer": "regularizer",
    "unit_directions": "regularizer",
    "RunningConstant": "regularizer",
    "TrainConfig": "training",
    "train": "training",
    "sample": "sampling",
    "generate": "sampling",
    "finish": "sampling",
    "Step": "sampling",
    "interpolate": "interpolation",
    "coarse_to_fine": "interpolation",
    "ddim_invert": "inversion",
    "null_text_invert": "null_text",
    "reconstruct": "inversion",
    "Inversion": "inversion",
    "edit_text": "text_editing",
    "word_map": "text_editing",
    "drag": "dragging",
    "Dragged": "dragging",
    "DragOptions": "dragging",
    "DRAG_DIFFUSION": "dragging",
    "point_map": "dragging",
    "istd": "evaluation",
    "ISTD": "evaluation",
    "neighbour_distances": "images",
    "compare": "evaluation",
    "Comparison": "evaluation",
    "example_istd": "evaluation",
    "read_prompts": "evaluation",
    "path_lengths": "evaluation",
    "ReaderJudge": "evaluation",
    "PhotoJudge": "evaluation",
    "reconstruction": "evaluation",
    "MixingSlider": "widgets",
    "BlendSlider": "widgets",
    "MixingPad": "widgets",
    "pad_weights": "widgets",
    "EditSlider": "widgets",
    "DragCanvas": "widgets",
    "DragEditor": "widgets",
    "PictureUpload": "widgets",
    "LivePlot": "widgets",
    "WalkSlider": "widgets",
    "difference": "widgets",
    "mark": "widgets",
    "strip": "widgets",
}

__all__ = [
    "slerp", "mix", "seeded_noise", "encode", "decode", "load_pipeline", "UnknownWordsWarning", "example_picture",
    "import_lora", "lora_of", "export_lora", "Lora", "set_smoothness", "Schedule", "base_loss", "variation_regularizer",
    "unit_directions", "RunningConstant", "TrainConfig", "train", "sample", "generate", "finish", "Step", "interpolate",
    "coarse_to_fine", "ddim_invert", "null_text_invert", "reconstruct", "Inversion", "edit_text", "word_map",
    "drag", "Dragged", "DragOptions", "DRAG_DIFFUSION", "point_map", "istd", "ISTD", "neighbour_distances",
    "compare", "Comparison", "example_istd", "read_prompts", "path_lengths", "ReaderJudge", "PhotoJudge",
    "reconstruction", "MixingSlider", "BlendSlider", "MixingPad", "pad_weights", "EditSlider", "DragCanvas",
    "DragEditor", "PictureUpload", "LivePlot", "WalkSlider", "difference", "mark", "strip",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
