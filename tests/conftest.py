"""Fixtures: a tiny pipeline that stands in for models."""

import contextlib

import pytest
import torch
from diffusers import StableDiffusionPipeline
from tiny import build_tiny_pipeline

# Registers the simulated device before the first backward pass, at which PyTorch counts the devices once and for all.
with contextlib.suppress(pytest.skip.Exception):
    import simulated_gpu  # noqa: F401


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


@pytest.fixture(scope="module")
def gpu():
    """A simulated accelerator, on which models are loaded and trained by default; see `simulated_gpu`."""
    from simulated_gpu import simulated_gpu

    with pytest.MonkeyPatch.context() as patch, simulated_gpu(patch) as device:
        patch.setattr("smoothnb.models.load.best_device", lambda: device)
        patch.setattr("accelerate.Accelerator.device", device)
        yield device
