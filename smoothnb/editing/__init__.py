"""Edits of a picture by another prompt."""

from smoothnb.editing.edit import edit_text, word_map

__all__ = ["edit_text", "word_map"]
