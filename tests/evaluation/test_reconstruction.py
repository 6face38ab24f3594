"""Reconstruction metrics: known values for known differences."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from smoothnb import reconstruction

NOISE = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_equal_pictures_have_no_error():
    found = reconstruction([NOISE], [NOISE])
    assert found["mse"].item() == 0 and found["ssim"].item() == pytest.approx(1) and found["psnr"].item() > 100


def test_a_known_difference_gives_the_known_figures_for_each_picture():
    grey = [Image.new("RGB", (64, 64), (g, g, g)) for g in (100, 151, 100)]
    found = reconstruction(grey[:2], [grey[2]] * 2)
    torch.testing.assert_close(found["mse"], torch.tensor([0.0, 0.04]))
    assert found["psnr"][1].item() == pytest.approx(-10 * np.log10(0.04), abs=1e-3)
    assert found["ssim"][0] > found["ssim"][1]


def test_originals_are_brought_to_the_pictures_size():
    large = Image.fromarray(np.asarray(Image.new("RGB", (200, 100), (9, 99, 199))))
    small = Image.new("RGB", (64, 64), (9, 99, 199))
    assert reconstruction([small], [large])["mse"].item() < 1e-6


def test_what_does_not_pair_up_is_named():
    with pytest.raises(ValueError, match="as many originals as pictures, at least one, got 1 and 0"):
        reconstruction([], [NOISE])


def test_lpips_names_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="pip install torchvision"):
        reconstruction([NOISE], [NOISE], lpips=True)
