import logging
import math
from itertools import pairwise
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from smoothnb import decode, encode, mix, seeded_noise, slerp
from smoothnb.latents import decode_pixels, picture_size

ratios = st.floats(0, 1)
seeds = st.integers(0, 2**31 - 1)
# One latent or a batch of them, mostly not square.
shapes = st.lists(st.integers(1, 3), max_size=1).flatmap(
    lambda batch: st.tuples(*map(st.just, batch), st.just(4), st.integers(6, 12), st.integers(6, 12))
)
# With the error that rounding to it makes in a length or an angle.
precisions = st.sampled_from([(torch.float16, 2e-3), (torch.float32, 1e-5), (torch.float64, 1e-7)])


def pair(seed: int, *shape: int, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


def pair_of_equal_lengths(seed: int, *shape: int, dtype):
    """As `pair`; every sample of b is as long as that of a."""
    a, b = pair(seed, *shape)
    lengths = [x.reshape(-1, math.prod(shape[-3:])).norm(dim=1) for x in (a, b)]
    return a.to(dtype), (b * (lengths[0] / lengths[1]).reshape(-1, 1, 1, 1)).reshape(shape).to(dtype)


def angle(u, v):
    u, v = (x.double().flatten() / x.double().norm() for x in (u, v))
    return 2 * torch.atan2((u - v).norm(), (u + v).norm()).item()


def test_slerp_on_the_circle_is_the_known_point():
    a, b = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torch.tensor([math.cos(math.radians(27)), math.sin(math.radians(27))], dtype=torch.float64)
    torch.testing.assert_close(slerp(a, b, 0.3), expected)


@settings(deadline=None, max_examples=50)
@given(seeds, ratios)
def test_slerp_is_the_same_from_the_other_end(seed, eta):
    a, b = pair(seed, 30)
    torch.testing.assert_close(slerp(a, b, eta), slerp(b, a, 1 - eta))


@settings(deadline=None, max_examples=60)
@given(seeds, shapes, precisions, ratios)
def test_in_every_shape_and_precision_slerp_keeps_to_its_spheres(seed, shape, precision, eta):
    """Ends are exact, every sample keeps its length and turns by η of its own angle, from either end."""
    dtype, error = precision
    a, b = pair_of_equal_lengths(seed, *shape, dtype=dtype)
    path = slerp(a, b, [0, eta, 1])
    assert path.dtype == dtype and path.shape == (3, *shape)
    assert torch.equal(path[0], a) and torch.equal(path[2], b)
    torch.testing.assert_close(path[1], slerp(b, a, 1 - eta), rtol=0, atol=5 * error)
    for u, m, v in zip(*(x.reshape(-1, *shape[-3:]) for x in (a, path[1], b)), strict=True):
        assert m.double().norm().item() == pytest.approx(u.double().norm().item(), rel=error)
        assert angle(u, m) == pytest.approx(eta * angle(u, v), abs=error)


@settings(deadline=None, max_examples=40)
@given(seeds, shapes, precisions, st.integers(2, 20))
def test_neighbours_on_a_path_are_at_equal_angles(seed, shape, precision, steps):
    dtype, error = precision
    path = slerp(*pair_of_equal_lengths(seed, *shape, dtype=dtype), torch.linspace(0, 1, steps + 1))
    for sample in path.reshape(steps + 1, -1, *shape[-3:]).unbind(1):
        turns = [angle(u, v) for u, v in pairwise(sample)]
        assert turns == pytest.approx([angle(sample[0], sample[-1]) / steps] * steps, abs=2 * error)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (4, 6, 6), (2, 4, 6, 6)])
def test_ends_are_exact_and_dtype_is_kept(dtype, shape):
    a, b = pair(1, *shape, dtype=dtype)
    path = slerp(a, b, [0, 0.5, 1])
    assert path.dtype == dtype
    assert path.shape == (3, *shape)
    assert torch.equal(path[0], a)
    assert torch.equal(path[2], b)


def test_half_precision_is_the_rounded_double():
    a, b = pair(2, 4, 16, 16, dtype=torch.float16)
    expected = slerp(a.double(), b.double(), 0.3).half()
    # Weights are rounded to float32 once, so a last bit of float16 may differ where a value lies on the edge.
    torch.testing.assert_close(slerp(a, b, 0.3), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("eta", [[0.1, 0.7], (0.1, 0.7), np.array([0.1, 0.7]), torch.tensor([0.1, 0.7]).double()])
def test_any_sequence_of_ratios_gives_a_leading_axis(eta):
    a, b = pair(3, 4, 5, 5)
    torch.testing.assert_close(slerp(a, b, eta), torch.stack([slerp(a, b, 0.1), slerp(a, b, 0.7)]))


def test_a_batch_has_an_angle_per_sample():
    a, b = pair(4, 3, 4, 5, 5)
    b[1] = 2 * a[1]
    mixed = slerp(a, b, [0.25, 0.5])
    for i in range(3):
        torch.testing.assert_close(mixed[:, i], slerp(a[i], b[i], [0.25, 0.5]))


def test_parallel_vectors_are_mixed_by_lerp():
    (a, _) = pair(5, 4, 5, 5)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, 3 * a, 0.25), 1.5 * a)


@pytest.mark.parametrize("scale", [1e-6, 1e-8, 1e-12])
def test_nearly_parallel_vectors_stay_finite_and_near(scale):
    a, b = pair(6, 100)
    near = a + scale * b
    torch.testing.assert_close(slerp(a, near, 0.5), (a + near) / 2, rtol=1e-9, atol=1e-9)


def test_gradients_reach_both_ends():
    a, b = (x.requires_grad_() for x in pair(7, 2, 3))
    assert torch.autograd.gradcheck(lambda a, b: slerp(a, b, 0.3), (a, b))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_opposite_vectors_raise(dtype):
    (a, _) = pair(8, 4, 5, 5, dtype=dtype)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -2 * a, 0.5)


ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("a", "b", "eta", "message"),
    [
        (ONES, torch.ones(3, 2), 0.5, "same shape"),
        (ONES, ONES.double(), 0.5, "same dtype"),
        (ONES, ONES.to("meta"), 0.5, "same device"),
        (ONES, ONES * math.nan, 0.5, "finite b"),
        (ONES * math.inf, ONES, [0.5], "finite a"),
        (ONES, ONES * 0, 0.5, "zero vector"),
        (torch.tensor(1.0), torch.tensor(1.0), 0.5, "one to four dimensions"),
        (torch.ones(2, 0), torch.ones(2, 0), 0.5, "one to four dimensions"),
        (torch.ones(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1), 0.5, "one to four dimensions"),
        (ONES, ONES, 1.1, "eta"),
        (ONES, ONES, [0.5, -0.1], "eta"),
        (ONES, ONES, math.nan, "eta"),
        (ONES, ONES, [], "eta"),
        (ONES, ONES, np.zeros((2, 2)), "eta"),
    ],
)
def test_wrong_arguments_of_slerp_say_what_came(a, b, eta, message):
    with pytest.raises(ValueError, match=message):
        slerp(a, b, eta)


def test_integers_raise_without_the_type_checker_too():
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=r"floating point, got torch\.int64"):
            slerp(torch.ones(3).long(), torch.ones(3).long(), 0.5)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_shapes_are_checked_while_tests_run(tiny_pipe):
    with pytest.raises(jaxtyping.TypeCheckError):
        decode_pixels(tiny_pipe, torch.zeros(4, 4))


def test_seeded_noise_is_what_diffusers_draws(tiny_pipe):
    noise = seeded_noise(tiny_pipe, [3, 5])
    generators = [torch.Generator().manual_seed(s) for s in (3, 5)]
    drawn = tiny_pipe.prepare_latents(2, 4, 64, 64, torch.float32, torch.device("cpu"), generators)
    assert torch.equal(noise, drawn)
    assert torch.equal(seeded_noise(tiny_pipe, 5), noise[1])


def test_seeded_noise_takes_its_shape_from_pipeline_and_pixels(tiny_pipe):
    assert seeded_noise(tiny_pipe, 0).shape == (4, 8, 8)
    assert seeded_noise(tiny_pipe, range(2), height=32, width=96).shape == (2, 4, 4, 12)
    for wrong in (20, 0, -8):
        with pytest.raises(ValueError, match="multiples of 8"):
            seeded_noise(tiny_pipe, 0, height=wrong)
    with pytest.raises(ValueError, match="at least one seed"):
        seeded_noise(tiny_pipe, [])


def test_picture_size_of_square_and_oblong_models(tiny_pipe):
    oblong = SimpleNamespace(unet=SimpleNamespace(config=SimpleNamespace(sample_size=(32, 96))), vae_scale_factor=4)
    assert picture_size(tiny_pipe) == (64, 64)
    assert picture_size(oblong) == (128, 384)
    assert picture_size(oblong, width=12) == (128, 12)


def test_encode_is_the_scaled_mean_of_the_posterior(tiny_pipe):
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    levels = (pixels * 255).round() / 255
    expected = tiny_pipe.vae.encode(levels * 2 - 1).latent_dist.mean * 0.7
    torch.testing.assert_close(encode(tiny_pipe, pixels), expected)
    assert not encode(tiny_pipe, pixels).requires_grad


def test_decode_is_what_diffusers_decodes(tiny_pipe):
    latents = seeded_noise(tiny_pipe, [1, 2, 3])
    with torch.no_grad():
        decoded = tiny_pipe.vae.decode(latents / 0.7).sample
    expected = tiny_pipe.image_processor.postprocess(decoded, output_type="pil")
    for batch_size in (1, 16):
        pictures = decode(tiny_pipe, latents, batch_size)
        for picture, other in zip(pictures, expected, strict=True):
            assert np.abs(np.asarray(picture, int) - np.asarray(other, int)).max() <= 1
    assert decode(tiny_pipe, latents[0])[0].size == (64, 64)


def test_decode_says_so_where_numbers_overflow(tiny_pipe):
    with pytest.raises(FloatingPointError, match="float32"):
        decode(tiny_pipe, torch.full((4, 8, 8), math.nan))


def test_encode_resizes_to_the_models_size_and_says_so_once(tiny_pipe, caplog):
    pictures = [Image.new("RGB", (100, 50), "red"), Image.new("RGB", (30, 70), "red")]
    with caplog.at_level(logging.WARNING):
        assert encode(tiny_pipe, pictures).shape == (2, 4, 8, 8)
    assert [r.getMessage() for r in caplog.records] == [
        "Pictures of 30×70, 100×50 pixels are cropped around the middle and resized to 64×64."
    ]
    caplog.clear()
    assert encode(tiny_pipe, Image.new("RGB", (96, 32)), height=32, width=96).shape == (1, 4, 4, 12)
    assert not caplog.records


def test_mixes_of_many_noises_stay_normal():
    noises = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    for weights in ([0.25] * 4, [0.7, 0.1, 0.1, 0.1], [3.0, 0, 0, 1.0]):
        assert mix(noises, weights).std() == pytest.approx(1, abs=0.03)
    assert torch.equal(mix(noises, [0, 0, 2.0, 0]), noises[2])
    rows = mix(noises, [[1, 0, 0, 0], [1, 1, 0, 0]])
    torch.testing.assert_close(rows[1], (noises[0] + noises[1]) / 2**0.5)
    assert mix(noises.half(), [1, 1, 1, 1]).dtype == torch.float16


weights_of_four = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda w: max(w) > 0.01)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(4, 12), st.integers(4, 12), precisions, weights_of_four)
def test_mixes_depend_on_proportions_alone_and_not_on_the_order(seed, height, width, precision, weights):
    dtype, error = precision
    generator = torch.Generator().manual_seed(seed)
    noises = torch.randn(4, 4, height, width, generator=generator, dtype=torch.float64).to(dtype)
    mixed = mix(noises, weights)
    assert mixed.dtype == dtype and mixed.shape == noises.shape[1:]
    close = dict(rtol=0, atol=5 * error)
    torch.testing.assert_close(mix(noises, [3 * w for w in weights]), mixed, **close)
    torch.testing.assert_close(mix(noises.flip(0), weights[::-1]), mixed, **close)
    torch.testing.assert_close(mix(noises, [weights, [1, 0, 0, 0]])[0], mixed, **close)
    assert torch.equal(mix(noises, [0, 1, 0, 0]), noises[1])


@settings(deadline=None, max_examples=60)
@given(seeds, weights_of_four)
def test_mixes_of_noises_at_right_angles_stay_on_their_sphere(seed, weights):
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(64, 4, generator=generator, dtype=torch.float64)).Q.T
    mixed = mix(8 * directions.reshape(4, 4, 4, 4), weights)
    assert mixed.norm().item() == pytest.approx(8)
    # Angles to the noises are those whose cosines are in the proportions of the weights.
    cosines = (directions @ mixed.flatten() / 8).tolist()
    assert cosines == pytest.approx((np.array(weights) / np.linalg.norm(weights)).tolist(), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(seeds, ratios)
def test_for_two_noises_at_right_angles_a_mix_is_slerp_at_another_pace(seed, eta):
    generator = torch.Generator().manual_seed(seed)
    a, b = 5 * torch.linalg.qr(torch.randn(48, 2, generator=generator, dtype=torch.float64)).Q.T.reshape(2, 3, 4, 4)
    pace = math.atan2(eta, 1 - eta) / (math.pi / 2)
    torch.testing.assert_close(mix(torch.stack([a, b]), [1 - eta, eta]), slerp(a, b, pace))


@pytest.mark.parametrize("weights", [[1.0], [1, 1, -1], [0, 0, 0], [1, float("nan"), 1]])
def test_weights_that_mix_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        mix(torch.randn(3, 4, 8, 8), weights)
