"""Attention lent from sources to edits, compared with diffusers' own processors as the oracle."""

import pytest
import torch
from diffusers import Transformer2DModel

from smoothnb._utils.temporarily import hooked
from smoothnb.editing.attention import Control, lend
from smoothnb.models.load import load_pipeline


def control(tokens=32, edits=1, size=(8, 8), mapper=None, found=None, weights=None, tracked=()):
    mask = torch.zeros(2, edits, tokens, dtype=torch.bool)
    mask[:, :, list(tracked)] = True
    return Control(
        torch.eye(tokens).expand(edits, -1, -1) if mapper is None else mapper,
        torch.ones(edits, tokens, dtype=torch.bool) if found is None else found,
        torch.ones(edits, tokens) if weights is None else weights,
        mask, size,
    )  # fmt: skip


def batch(pipe, edits=1, size=(8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(3 * edits, 4, *size, generator=generator)
    texts = torch.randn(3 * edits, 32, pipe.unet.config.cross_attention_dim, generator=generator)
    return latents, texts


@torch.no_grad()
def run(pipe, latents, texts, how=None):
    if how is None:
        return pipe.unet(latents, 500, encoder_hidden_states=texts).sample
    with lend(pipe.unet, how):
        return pipe.unet(latents, 500, encoder_hidden_states=texts).sample


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (9, 11)])
def test_with_nothing_lent_it_is_diffusers_own_attention(tiny_pipe, size):
    latents, texts = batch(tiny_pipe, edits=2, size=size)
    how = control(edits=2, size=size, tracked=(1, 2))
    how.words = how.layout = False
    torch.testing.assert_close(
        run(tiny_pipe, latents, texts, how), run(tiny_pipe, latents, texts), atol=2e-5, rtol=1e-4
    )
    assert how.seen().shape == (2, 1, *size) and how.mask(0.0).all()


def test_an_edit_that_is_its_source_is_left_as_it_was(tiny_pipe):
    latents, texts = batch(tiny_pipe)
    latents[1], texts[1] = latents[0], texts[0]
    torch.testing.assert_close(
        run(tiny_pipe, latents, texts, control()), run(tiny_pipe, latents, texts), atol=2e-5, rtol=1e-4
    )


def test_lending_changes_the_edit_alone(tiny_pipe):
    latents, texts = batch(tiny_pipe)
    plain = run(tiny_pipe, latents, texts)
    for words, layout in ((True, False), (False, True)):
        how = control()
        how.words, how.layout = words, layout
        lent = run(tiny_pipe, latents, texts, how)
        torch.testing.assert_close(lent[[0, 2]], plain[[0, 2]], atol=2e-5, rtol=1e-4)
        assert (lent[1] - plain[1]).abs().max() > 1e-3


def test_words_are_lent_by_the_mapper_and_added_ones_keep_their_own():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(
        3 * 2, 5, 4, generator=generator
    )  # three parts of one picture, two heads, five pixels, four tokens
    mapper = torch.zeros(1, 4, 4)
    mapper[0, 3, 1] = mapper[0, 0, 0] = 1
    found = torch.tensor([[True, True, False, False]])
    how = control(tokens=4, mapper=mapper, found=found, weights=torch.tensor([[1.0, 2.0, 1.0, 0.5]]))
    source, edit, without = how.lend_words(maps).unflatten(0, (3, 2))
    before = maps.unflatten(0, (3, 2))
    assert torch.equal(source, before[0]) and torch.equal(without, before[2])
    torch.testing.assert_close(edit[..., 0], before[0][..., 0])
    torch.testing.assert_close(edit[..., 1], 2 * before[0][..., 3])
    torch.testing.assert_close(edit[..., 2], before[1][..., 2])
    torch.testing.assert_close(edit[..., 3], before[1][..., 3] / 2)


def test_a_mask_is_where_a_word_is_looked_at_and_next_to_it():
    how = control(tokens=3, size=(4, 8), tracked=(1,))
    maps = torch.zeros(3, 32, 3)
    maps[:, 8 * 2 + 6, 1] = 1  # row 2, column 6
    how.lend_words(maps)
    mask = how.mask(0.5)[0, 0]
    assert mask[1:4, 5:8].all() and mask.sum() == 9
    assert how.seen()[0, 0, 2, 6] == 1


def test_maps_of_other_sizes_come_to_the_latents_size():
    how = control(tokens=3, size=(4, 8), tracked=(1,))
    maps = torch.zeros(3, 8, 3)
    maps[:, 4 * 1 + 3, 1] = 1  # of 2 × 4: row 1, column 3
    how.lend_words(maps)
    assert how.seen()[0, 0].argmax() // 8 >= 2 and how.seen()[0, 0].argmax() % 8 >= 6


def test_the_grid_of_every_level_is_the_unets_own(tiny_pipe):
    for size in [(8, 8), (5, 9), (9, 5), (7, 12), (13, 3), (1, 6)]:
        seen = []
        layers = [m for m in tiny_pipe.unet.modules() if isinstance(m, Transformer2DModel)]
        with hooked(*((layer, seen.append) for layer in layers)):
            run(tiny_pipe, *batch(tiny_pipe, size=size))
        grids = {tuple(states[0].shape[-2:]) for states in seen}
        assert len(grids) == 2 and {control(size=size).grid(h * w) for h, w in grids} == grids


def test_the_grid_at_every_size_of_stable_diffusion():
    def halved(side):
        # A convolution of width 3 and stride 2, padded by 1.
        return (side + 2 - 3) // 2 + 1

    for height in range(32, 129):
        for width in range(max(32, (height + 1) // 2), min(128, 2 * height) + 1):
            how, grid = control(tokens=1, size=(height, width)), (height, width)
            for _ in range(4):
                assert how.grid(grid[0] * grid[1]) == grid
                grid = halved(grid[0]), halved(grid[1])
    with pytest.raises(ValueError, match="cannot tell where attention of 7 pixels"):
        control(size=(8, 8)).grid(7)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_processors_come_back_whatever_happens(tiny_pipe, error):
    before = dict(tiny_pipe.unet.attn_processors)

    def broken():
        with lend(tiny_pipe.unet, control()):
            assert all(p is not before[n] for n, p in tiny_pipe.unet.attn_processors.items())
            raise error

    with pytest.raises(error):
        broken()
    assert tiny_pipe.unet.attn_processors == before


def test_a_lora_goes_on_working():
    smooth, base = load_pipeline("postcard", smooth=True), load_pipeline("postcard")
    latents, texts = batch(base, size=(16, 16))
    how = control(size=(16, 16))
    how.words = how.layout = False
    with_lora = run(smooth, latents, texts, how)
    torch.testing.assert_close(with_lora, run(smooth, latents, texts), atol=2e-4, rtol=1e-3)
    assert (with_lora - run(base, latents, texts, how)).abs().max() > 1e-2
