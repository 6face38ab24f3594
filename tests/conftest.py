"""Shapes and types of every smoothnb function are checked while the tests run; a tiny pipeline stands in for models."""

import jaxtyping

# Before smoothnb is first imported. An int is welcome where a float is asked for (PEP 484).
jaxtyping.install_import_hook("smoothnb", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import pytest  # noqa: E402
import torch  # noqa: E402
from diffusers import StableDiffusionPipeline  # noqa: E402
from tiny import build_tiny_pipeline  # noqa: E402


@pytest.fixture(scope="session")
def tiny_pipe() -> StableDiffusionPipeline:
    """The tiny pipeline. Tests share it: leave it as it is."""
    return build_tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipe, tmp_path_factory):
    """A folder as `save_pretrained` writes it, in half precision like the shipped model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_pipeline().to(torch.float16).save_pretrained(folder)
    return folder
