"""Pipelines, where they are found, and the smooth LoRA in them."""

from smoothnb.models.load import UnknownWordsWarning, load_pipeline
from smoothnb.models.lora import import_lora, lora_of, set_smoothness
from smoothnb.models.lora_files import Lora, export_lora

__all__ = ["Lora", "UnknownWordsWarning", "export_lora", "import_lora", "load_pipeline", "lora_of", "set_smoothness"]
