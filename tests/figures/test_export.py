import sys

import numpy as np
import pytest
from PIL import Image

from smoothnb import MixingSlider

ROWS = {
    "base": [Image.new("RGB", (8, 8), (g, 0, 0)) for g in (0, 120, 240)],
    "smooth": [Image.new("RGB", (8, 8), (0, g, 0)) for g in (0, 120, 240)],
}


def middles(picture):
    """The colours in the middle of the left and of the right picture."""
    pixels = np.asarray(picture.convert("RGB"), dtype=int)
    return pixels[-20, pixels.shape[1] // 4], pixels[-20, 3 * pixels.shape[1] // 4]


def test_a_gif_goes_there_and_back_with_rows_side_by_side(tmp_path):
    path = MixingSlider(ROWS, interval=120).save(tmp_path / "new" / "path.gif", size=64)
    assert path == tmp_path / "new" / "path.gif"
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (4, 120, 0)
        for i, grey in enumerate((0, 120, 240, 120)):
            gif.seek(i)
            left, right = middles(gif)
            np.testing.assert_allclose(left, (grey, 0, 0), atol=4)
            np.testing.assert_allclose(right, (0, grey, 0), atol=4)


def test_a_gif_of_a_single_frame(tmp_path):
    path = MixingSlider(ROWS["base"][:1]).save(tmp_path / "one.gif", size=32)
    with Image.open(path) as gif:
        assert gif.n_frames == 1


def test_a_png_is_the_strip(tmp_path):
    slider = MixingSlider(ROWS)
    with Image.open(slider.save(str(tmp_path / "path.PNG"))) as picture:
        assert picture.size[0] > 3 * 112


def test_an_mp4_holds_as_many_frames(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = MixingSlider(ROWS, interval=100).save(tmp_path / "path.mp4", size=63)
    assert ffmpeg.count_frames_and_secs(str(path)) == (4, pytest.approx(0.4, abs=0.05))


def test_a_missing_writer_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match="pip install imageio-ffmpeg"):
        MixingSlider(ROWS).save(tmp_path / "path.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["path.avi", "path"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"\.gif, \.mp4 or \.png, got '{name}'"):
        MixingSlider(ROWS).save(tmp_path / "new" / name)
    assert not list(tmp_path.iterdir())
