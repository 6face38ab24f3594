"""Features read at places: as if the maps had been enlarged first."""

import pytest
import torch
import torch.nn.functional as F

from smoothnb.dragging.features import FeatureExtractor, Features
from smoothnb.dragging.motion import around, next_positions, patch, supervision_loss, track
from smoothnb.sampling import embed


def features_of(*maps, size=(64, 64)):
    scales = tuple((map_.mean((2, 3), keepdim=True), map_.std((2, 3), keepdim=True)) for map_ in maps)
    return Features(maps, scales, size, torch.zeros(len(maps[0]), 4, 8, 8))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96)])
def test_reading_at_places_is_reading_off_enlarged_maps(height, width):
    maps = [torch.randn(2, 5, height // 8, width // 8), torch.randn(2, 3, height // 16, width // 16)]
    enlarged = torch.cat([F.interpolate(m, (height // 2, width // 2), mode="bilinear") for m in maps], 1)
    places = torch.tensor([[[11.0, 7.0], [3.0, 41.0], [width - 5.0, 31.0]]]).expand(2, -1, -1)
    read = features_of(*maps, size=(height, width)).at(places)
    rows, columns = ((places[0, :, i] / 2 - 0.5).long() for i in (1, 0))
    torch.testing.assert_close(read, enlarged[:, :, rows, columns].transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_features_are_the_blocks_outputs_and_no_hook_remains(tiny_pipe):
    x = torch.randn(2, 4, 8, 8)
    outputs = []
    hook = tiny_pipe.unet.up_blocks[1].register_forward_hook(lambda _, __, output: outputs.append(output))
    texts = embed(tiny_pipe, "a house")
    with torch.no_grad():
        expected = tiny_pipe.unet(x, 300, encoder_hidden_states=texts.expand(2, -1, -1)).sample
        hook.remove()
        plain = FeatureExtractor(tiny_pipe, (-1,), texts, (64, 64), standardize=False)(x, torch.tensor(300))
        features = FeatureExtractor(tiny_pipe, (0, 1), texts, (64, 64))(x, torch.tensor(300))
        again = FeatureExtractor(tiny_pipe, (0, 1), texts, (64, 64))(x[1:], torch.tensor(300), features)
    torch.testing.assert_close(plain.maps[0], outputs[0])
    torch.testing.assert_close(features.prediction, expected)
    for map_, like in zip(features.maps, again.maps, strict=True):
        torch.testing.assert_close(map_[0].mean((1, 2)), torch.zeros(len(map_[0])), atol=1e-4, rtol=0)
        torch.testing.assert_close(map_[0].std((1, 2)), torch.ones(len(map_[0])), atol=1e-3, rtol=0)
        # Later features are standardized by the first ones, not by their own.
        torch.testing.assert_close(like, map_[1:], atol=1e-4, rtol=1e-3)
    assert not any(module._forward_hooks for module in tiny_pipe.unet.modules())


def test_a_patch_is_a_square_of_places():
    assert patch(2, 2).tolist() == [[x, y] for x in (-2, 0, 2) for y in (-2, 0, 2)]
    assert patch(0.5, 2).tolist() == [[0, 0]]
    points = torch.tensor([[[10.0, 20.0], [30.0, 40.0]]])
    assert around(points, patch(2, 2)).shape == (1, 18, 2)
    assert around(points, patch(2, 2))[0, 9 + 4].tolist() == [30, 40]


def test_places_go_straight_to_the_target_and_no_further():
    handles = torch.tensor([[[0.0, 0.0], [10.0, 10.0], [5.0, 5.0]]])
    targets = torch.tensor([[[30.0, 40.0], [10.0, 13.0], [5.0, 5.0]]])
    expected = torch.tensor([[[3.0, 4.0], [10.0, 13.0], [5.0, 5.0]]])
    torch.testing.assert_close(next_positions(handles, targets, 5), expected)


def test_tracking_finds_what_has_moved():
    whole = F.interpolate(torch.randn(1, 8, 12, 12), (32, 40), mode="bicubic")
    before, after = (features_of(whole[..., shift : shift + 32], size=(64, 64)) for shift in (4, 1))
    handles = torch.tensor([[[31.0, 31.0], [21.0, 41.0]]])
    own = before.at(handles)
    places, distances = track(after, handles, own, patch(8, 2))
    torch.testing.assert_close(places, handles + torch.tensor([6.0, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(distances, torch.zeros(1, 2), atol=1e-4, rtol=0)
    assert supervision_loss(after, places, own).item() == pytest.approx(0, abs=1e-3)
    loss = supervision_loss(after, handles, own)
    expected = (after.at(handles) - own).abs().mean(-1).sum()
    assert loss.shape == (1,) and loss.item() == pytest.approx(expected.item()) and loss > 0.5
