"""Edits in words: what each method holds, how far it lets go, and what is wrong with what is asked for."""

from dataclasses import replace

import pytest
import torch

from smoothnb import ddim_invert, edit_text, finish, load_pipeline, null_text_invert, word_map
from smoothnb.editing.edit import SWITCH
from smoothnb.postcards import Scene, edit, full_caption, picture, thing_mask
from smoothnb.sampling import sample

SCENE = Scene("noon", "snow", "clear", "house", "red", 44, 88, 44, sun_x=94, sun_y=24, ridges=2, seed=3)
SOURCE, TARGET = full_caption(SCENE), full_caption(edit(SCENE, colour="blue"))
STEPS = 10


@pytest.fixture(scope="module")
def postcard():
    return load_pipeline("postcard", dtype=torch.float32)


@pytest.fixture(scope="module")
def inverted(postcard):
    return ddim_invert(postcard, picture(SCENE), SOURCE, STEPS, fixed_point_steps=3, progress=False)


def latents(steps):
    *_, last = steps
    return last.latents


def away(inversion, steps):
    """Mean squared distance from the picture's latents."""
    return (latents(steps) - inversion.trajectory[0]).square().mean().item()


def thing_and_rest(inversion, x):
    """Mean squared change of the latents at the thing, and where neither it nor its neighbours are."""
    mask = torch.nn.functional.max_pool2d(thing_mask([SCENE]), 8)
    far = torch.nn.functional.max_pool2d(mask, 7, 1, 3) == 0
    change = (x - inversion.trajectory[0]).square().mean(1, keepdim=True)
    return change[mask > 0.5].mean().item(), change[far].mean().item()


@pytest.mark.parametrize("method", ["switch", "sdedit"])
def test_the_more_is_let_go_the_further_it_goes(postcard, inverted, method):
    held, some, free = (away(inverted, edit_text(postcard, inverted, TARGET, s, method)) for s in (0.2, 0.6, 1.0))
    assert held < some < free


def test_switch_0_draws_the_picture_again(postcard, inverted):
    assert away(inverted, edit_text(postcard, inverted, TARGET, 0)) < 1e-3


def test_switching_is_sampling_by_one_prompt_and_then_by_the_other(postcard, inverted):
    steps = list(edit_text(postcard, inverted, TARGET, 0.5, guidance_scale=2))
    assert [step.index for step in steps] == list(range(STEPS))
    first = list(sample(postcard, SOURCE, inverted.latents, 0, STEPS, 1))
    switched = next(i for i, step in enumerate(steps) if step.timestep <= 500)
    torch.testing.assert_close(steps[switched - 1].latents, first[switched - 1].latents)
    assert not torch.equal(steps[switched].latents, first[switched].latents)
    whole = list(sample(postcard, TARGET, inverted.latents, 0, STEPS, 2))
    freely = list(edit_text(postcard, inverted, TARGET, 1.0, guidance_scale=2))
    torch.testing.assert_close(freely[-1].latents, whole[-1].latents)


def test_a_null_text_series_is_drawn_with_the_guidance_it_was_made_for(postcard):
    found = null_text_invert(postcard, picture(SCENE), SOURCE, 3.0, 5, inner_steps=2, progress=False)
    expected = list(sample(postcard, TARGET, found.latents, 0, 5, 3.0, found.series))
    torch.testing.assert_close(latents(edit_text(postcard, found, TARGET, 1.0)), expected[-1].latents)
    held = list(sample(postcard, SOURCE, found.latents, 0, 5, 3.0, found.series))
    torch.testing.assert_close(latents(edit_text(postcard, found, TARGET, 0)), held[-1].latents)
    without = replace(found, series=None)
    edits = [latents(edit_text(postcard, i, TARGET, method="attention", guidance_scale=3.0)) for i in (found, without)]
    assert not torch.allclose(*edits, atol=1e-2)


def test_attention_is_lent_until_it_is_let_go(postcard, inverted):
    edits = [
        latents(edit_text(postcard, inverted, TARGET, words, "attention", layout))
        for words, layout in ((1.0, 1.0), (0.4, 1.0), (1.0, 0.4))
    ]
    free = latents(edit_text(postcard, inverted, TARGET, 1.0))
    torch.testing.assert_close(edits[0], free, atol=1e-3, rtol=1e-2)
    assert all(not torch.allclose(edit, free, atol=1e-2) for edit in edits[1:])


def test_attention_finds_the_thing_and_blending_leaves_the_rest_alone(postcard, inverted):
    free = latents(edit_text(postcard, inverted, TARGET, method="attention"))
    kept = latents(edit_text(postcard, inverted, TARGET, method="attention", blend=("red house", "blue house")))
    (_, rest_free), (thing, rest) = thing_and_rest(inverted, free), thing_and_rest(inverted, kept)
    assert rest == 0 < rest_free
    assert thing > 0.05


def test_a_word_map_lights_up_at_the_thing(postcard, inverted):
    (seen,) = word_map(postcard, inverted, "red")
    assert seen.size == (16, 16)
    at = torch.tensor(list(seen.convert("L").tobytes())).reshape(16, 16) / 255
    thing = torch.nn.functional.avg_pool2d(thing_mask([SCENE]), 8)[0, 0] > 0.5
    assert at[thing].mean() > 3 * at[~thing].mean()


def test_a_word_without_weight_says_nothing_and_with_more_it_says_more(postcard, inverted):
    prompt = f"{SOURCE}, in the mist"
    none, plain, strong = (
        latents(edit_text(postcard, inverted, prompt, method="attention", weights={"mist": w})) for w in (0, 1, 2)
    )
    assert torch.equal(plain, latents(edit_text(postcard, inverted, prompt, method="attention")))
    assert not torch.allclose(none, plain, atol=1e-3) and not torch.allclose(strong, plain, atol=1e-3)
    assert edit_text(postcard, inverted, SOURCE, method="attention", weights={"red": 0})


def test_padding_is_lent_on_demand(postcard, inverted):
    a, b = (latents(edit_text(postcard, inverted, TARGET, method="attention", lend_padding=p)) for p in (False, True))
    assert not torch.allclose(a, b, atol=1e-3)


def test_sdedit_starts_from_the_picture_under_noise(postcard, inverted):
    steps = list(edit_text(postcard, inverted, TARGET, 0.5, "sdedit", seed=3))
    assert steps[0].timestep <= 500 and steps[0].index == STEPS - len(steps) > 0
    again, other = (latents(edit_text(postcard, inverted, TARGET, 0.5, "sdedit", seed=s)) for s in (3, 4))
    assert torch.equal(steps[-1].latents, again) and not torch.allclose(again, other, atol=1e-2)


@pytest.mark.parametrize("method", SWITCH)
def test_several_pictures_are_edited_as_each_would_be(postcard, method):
    scenes = [SCENE, edit(SCENE, thing="pine", colour="green")]
    sources = [full_caption(s) for s in scenes]
    targets = [full_caption(edit(s, colour="blue")) for s in scenes]
    both = ddim_invert(postcard, [picture(s) for s in scenes], sources, 5, progress=False)
    options = {"method": method} | ({"blend": ["house", "pine"]} if method == "attention" else {})
    together = latents(edit_text(postcard, both, targets, **options))
    options |= {"blend": "pine"} if method == "attention" else {}
    alone = latents(edit_text(postcard, both[1], targets[1], **options))
    torch.testing.assert_close(together[1:], alone, atol=1e-3, rtol=1e-2)


def test_it_runs_in_half_precision():
    pipe = load_pipeline("postcard", dtype=torch.bfloat16)
    found = ddim_invert(pipe, picture(SCENE), SOURCE, 4, progress=False)
    for method in SWITCH:
        (edited,) = finish(pipe, edit_text(pipe, found, TARGET, method=method), progress=False)
        assert edited.size == (128, 128)


def test_the_pipeline_is_its_own_between_steps_and_after_an_error(postcard, inverted, monkeypatch):
    before = dict(postcard.unet.attn_processors)
    steps = edit_text(postcard, inverted, TARGET, method="attention")
    next(steps)
    assert postcard.unet.attn_processors == before

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(postcard.unet, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    assert postcard.unet.attn_processors == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_prompt": " "}, "target prompt is empty"),
        ({"target_prompt": SOURCE.upper()}, "equal to the source prompt"),
        ({"target_prompt": [TARGET, TARGET]}, "one for each of 1 pictures, got 2"),
        ({"method": "magic"}, "expected a method of switch, attention, sdedit, got 'magic'"),
        ({"blend": "house"}, 'method="attention"'),
        ({"weights": {"blue": 2.0}}, 'method="attention"'),
        ({"method": "attention", "blend": "zebra"}, "'zebra' is in no prompt: the source has 'a red house"),
        ({"method": "attention", "weights": {"zebra": 2.0}}, "words of the target prompt"),
        ({"method": "attention", "weights": {"blue": float("nan")}}, "finite weights"),
        ({"method": "sdedit", "switch": 0.0}, "leaves no step"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(postcard, inverted, options, message):
    with pytest.raises(ValueError, match=message):
        edit_text(postcard, inverted, **{"target_prompt": TARGET} | options)


def test_an_inversion_of_another_model_is_refused(postcard, inverted, tiny_pipe):
    for refused in (lambda: edit_text(tiny_pipe, inverted, TARGET), lambda: word_map(tiny_pipe, inverted, "red")):
        with pytest.raises(ValueError, match="belongs to another model"):
            refused()


def test_unknown_words_are_warned_of(postcard, inverted):
    with pytest.warns(UserWarning, match='never seen "zebra"'):
        edit_text(postcard, inverted, "a zebra in the snow")


def test_steps_that_are_used_up_cannot_be_finished(postcard, inverted):
    steps = edit_text(postcard, inverted, TARGET, 0.4)
    (edited,) = finish(postcard, steps, progress=False)
    assert edited.size == (128, 128)
    with pytest.raises(ValueError, match="consumed"):
        finish(postcard, steps, progress=False)


@pytest.mark.parametrize("size", [(72, 104), (104, 40), (56, 56)])
def test_words_have_a_place_in_pictures_of_every_size(tiny_pipe, size):
    inverted = ddim_invert(tiny_pipe, torch.rand(3, *size), "a red house", 4, 0, *size, progress=False)
    (found,) = word_map(tiny_pipe, inverted, "house", every=2)
    assert found.size == (size[1] // 8, size[0] // 8)
    (edited,) = finish(
        tiny_pipe, edit_text(tiny_pipe, inverted, "a blue house", method="attention", blend="house"), progress=False
    )
    assert edited.size == size[::-1]
