import itertools

import pytest
import torch

from smoothnb.postcards.render import render, thing_mask
from smoothnb.postcards.scene import COLOURS, LANDS, THINGS, TIMES, Scene, edit, random_scenes
from smoothnb.postcards.sheet import contact_sheet
from smoothnb.postcards.stream import postcards


@pytest.fixture(scope="module")
def scenes():
    return list(itertools.islice(random_scenes(11), 40))


def test_pictures_have_the_asked_size_and_range(scenes):
    for size in (64, 128):
        pictures = render(scenes[:8], size)
        assert pictures.shape == (8, 3, size, size)
        assert pictures.isfinite().all() and pictures.min() >= 0 and pictures.max() <= 1
        assert pictures.flatten(1).std(1).min() > 0.03, "a picture is blank"


def test_a_scene_looks_the_same_in_any_batch(scenes):
    together = render(scenes)
    alone = torch.cat([render([s]) for s in scenes])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_seed_decides_shapes(scenes):
    scene = Scene(ridges=3)
    assert torch.equal(render([scene]), render([scene]))
    assert not torch.equal(render([scene]), render([edit(scene, seed=1)]))


def test_a_large_picture_shows_the_small_one(scenes):
    small, large = render(scenes[:16], 128), render(scenes[:16], 512)
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    # Stars and edges are drawn to the pixel; the rest must agree.
    assert (small - shrunk).abs().mean() < 0.006


def test_edges_are_antialiased():
    scene = Scene(thing="balloon", colour="red", x=64, y=40, size=44, ridges=0)
    mask = thing_mask([scene])
    partial = (mask > 0.05) & (mask < 0.95)
    assert 60 < partial.sum() < 600, "the outline should be soft, and only the outline"


@pytest.mark.parametrize("thing", [t for t in THINGS if t != "none"])
def test_the_mask_is_where_the_picture_changes(thing):
    scene = Scene(thing=thing, land="sea" if thing == "sailboat" else "meadow", colour="purple", time="noon")
    mask = thing_mask([scene])
    changed = (render([scene]) - render([edit(scene, colour="yellow")])).abs().amax(1, keepdim=True) > 0.1
    reflected = torch.zeros_like(mask)
    reflected[:, :, int(scene.base) :] = 1
    assert mask.sum() > 200
    assert not (changed & (mask < 0.01) & (reflected < 1)).any()
    ys, xs = torch.nonzero(mask[0, 0] > 0.5, as_tuple=True)
    assert abs(xs.float().mean() - scene.x) < 4 and abs(ys.float().mean() - scene.y) < 10


def test_nothing_casts_no_mask():
    assert thing_mask([Scene(thing="none")]).sum() == 0


def test_colours_and_times_can_be_told_apart():
    for time in TIMES:
        things = render([Scene(thing="house", colour=c, time=time, x=64, y=90, size=40) for c in COLOURS])
        body = things[:, :, 100:104, 50:54].mean((2, 3))
        assert torch.pdist(body).min() > 0.09, time
    lands = render([Scene(land=land, time=t) for t in TIMES for land in LANDS])[:, :, 90:].mean((2, 3))
    assert torch.pdist(lands).min() > 0.02


def test_no_banding_in_a_night_sky():
    sky = (render([Scene(time="night", ridges=0, weather="clear", seed=4)])[0, :, :60, :4] * 255).round()
    steps = (sky[:, 1:] - sky[:, :-1]).abs()
    assert steps.max() <= 6, "neighbouring rows of a gradient differ by a few levels at most"


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least one scene"):
        render([])
    with pytest.raises(ValueError, match="size of at least 8"):
        render([Scene()], size=4)


def test_the_stream_is_the_same_whatever_its_batch_size():
    few, many = (list(itertools.islice(postcards(3, batch_size=n), 6)) for n in (2, 6))
    assert [(p.caption, p.scene) for p in few] == [(p.caption, p.scene) for p in many]
    assert torch.allclose(few[5].picture, many[5].picture, atol=1e-5)


def test_contact_sheet_puts_every_picture_in_its_place():
    pictures = torch.stack([torch.full((3, 10, 10), i / 4) for i in range(4)])
    sheet = contact_sheet(pictures, columns=2, margin=2)
    assert sheet.size == (26, 26)
    assert [sheet.getpixel(at)[0] for at in ((5, 5), (17, 5), (5, 17), (17, 17))] == [0, 64, 128, 191]
    assert sheet.getpixel((0, 0)) == (255, 255, 255)
