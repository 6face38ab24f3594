"""The painted world that the embedded model knows, and in which every edit has a true answer."""

from smoothnb.postcards.captions import caption, edit_as_stated, full_caption, stated
from smoothnb.postcards.pictures import example_scene, picture
from smoothnb.postcards.render import render, thing_mask
from smoothnb.postcards.scene import Scene, edit, random_scene

__all__ = [
    "Scene",
    "caption",
    "edit",
    "edit_as_stated",
    "example_scene",
    "full_caption",
    "picture",
    "random_scene",
    "render",
    "stated",
    "thing_mask",
]
