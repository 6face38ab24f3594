"""Words and their tokens, and two prompts compared with each other."""

import pytest
import torch
from tiny import build_tiny_pipeline

from smoothnb.editing.alignment import Words, align
from smoothnb.editing.attention import Control
from smoothnb.postcards.captions import build_tokenizer
from smoothnb.sampling import TruncatedPromptWarning, embed


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def likes(tokenizer, source, target, **options):
    """By word of the target: the words of the source whose attention it gets."""
    ours, theirs = Words.of(tokenizer, source), Words.of(tokenizer, target)
    mapper = align(ours, theirs, **options).mapper
    owner = {token: word for word, tokens in zip(ours.texts, ours.tokens, strict=True) for token in tokens}
    return {
        word: {owner[i] for i in mapper[:, list(tokens)].sum(1).nonzero().flatten().tolist()}
        for word, tokens in zip(theirs.texts, theirs.tokens, strict=True)
    }


def test_a_word_of_several_tokens_is_found_by_its_letters(tokenizer):
    words = Words.of(tokenizer, "A Zebra, at noon")
    assert words.texts == ("a", "zebra", ",", "at", "noon")
    zebra = words.find("zebra")
    assert len(zebra) > 1 and zebra == words.tokens[1]
    pieces = tokenizer("A Zebra, at noon").input_ids
    assert tokenizer.decode([pieces[i] for i in zebra]).strip() == "zebra"
    assert words.end == len(pieces) - 1 and pieces[words.end] == tokenizer.eos_token_id


def test_words_in_a_row_are_found_together_and_everywhere(tokenizer):
    words = Words.of(tokenizer, "a red house by a red house")
    assert words.find("red house") == (2, 3, 6, 7)
    assert words.find("Red") == (2, 6)
    assert words.find("house red") == () and words.find("") == () and words.find("hous") == ()


@pytest.mark.parametrize(
    ("prompt", "phrase", "seen"),
    [
        ("a HOUSE's door", "house", ["house"]),
        ("the house, by a (house)!", "House", ["house", "house"]),
        ("a red-house", "red-house", ["red", "-", "house"]),
        ("a cafe\u0301 at noon", "café", ["café"]),
        ("2 pines in 2024", "2", ["2"]),
        ("2 pines in 2024", "2024", ["2024"]),
        ("a house\u2028by the sea", "house by", ["house", "by"]),
    ],
)
def test_words_are_those_that_the_text_encoder_sees(tokenizer, prompt, phrase, seen):
    words = Words.of(tokenizer, prompt)
    ids = tokenizer(prompt).input_ids
    assert "".join(tokenizer.decode([ids[i] for i in words.find(phrase)]).split()) == "".join(seen)


def test_a_textual_inversion_of_several_tokens_is_found_whole():
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<cat>", "<cat>_1", "<cat>_2"])
    words = Words.of(tokenizer, "a <cat> at noon")
    assert words.find("<cat>") == (2, 3, 4) and words.find("noon") == (6,)
    # The pipeline spells it out as well.
    assert words.end == len(tokenizer("a <cat> <cat>_1 <cat>_2 at noon").input_ids) - 1


def test_a_pipeline_with_a_textual_inversion_blends_by_all_its_tokens():
    pipe = build_tiny_pipeline()
    pipe.load_textual_inversion(torch.randn(3, 16), token="<cat>")
    how = Control.of(pipe, ["a <cat> at noon"], ["a red <cat> at noon"], (8, 8), ["<cat>"])
    assert [row.nonzero().flatten().tolist() for row in how.tracked[:, 0]] == [[2, 3, 4], [3, 4, 5]]
    with pytest.warns(TruncatedPromptWarning, match="takes 32 tokens, and this prompt has 35"):
        embed(pipe, "<cat> " * 11)


def test_what_was_cut_off_has_no_tokens(tokenizer):
    words = Words.of(tokenizer, "at noon " * 40 + "a house")
    assert words.find("house") == ()
    assert words.end == tokenizer.model_max_length - 1
    assert words.find("at") and "house" not in str(words)
    # The encoder sees fifteen times "at noon" and nothing of what follows.
    assert len(words.find("at noon")) == 30
    assert Words.of(tokenizer, "at noon " * 14 + "at a house").find("a house") == ()


def test_words_are_paired_by_what_they_are_and_not_by_where(tokenizer):
    found = likes(tokenizer, "a red house at noon", "a small zebra house at noon, at sea")
    assert found["house"] == {"house"} and found["noon"] == {"noon"} and found["a"] == {"a"}
    assert found["sea"] == set() and found[","] == set()


def test_a_word_gets_the_attention_of_the_one_whose_place_it_took(tokenizer):
    assert likes(tokenizer, "a red house at noon", "a red pine at noon")["pine"] == {"house"}
    assert likes(tokenizer, "a red house", "a zebra house")["zebra"] == {"red"}
    assert likes(tokenizer, "a red house at noon", "a house at noon")["house"] == {"house"}


def test_attention_is_shared_and_none_is_lost_where_numbers_differ(tokenizer):
    ours, theirs = Words.of(tokenizer, "a red house"), Words.of(tokenizer, "a zebra house")
    mapper = align(ours, theirs).mapper
    assert len(theirs.find("zebra")) > 1
    assert mapper[ours.find("red")[0]].sum() == pytest.approx(1)
    back = align(theirs, ours)
    assert back.mapper[:, ours.find("red")[0]].sum() == pytest.approx(len(theirs.find("zebra")))
    assert torch.equal(back.found, back.mapper.sum(0) > 0)


@pytest.mark.parametrize(("source", "target"), [("a house", "a red house at noon"), ("a red house at noon", "a house")])
def test_padding_has_likes_on_demand_and_never_a_word_for_one(tokenizer, source, target):
    ours, theirs = Words.of(tokenizer, source), Words.of(tokenizer, target)
    assert not align(ours, theirs).found[theirs.end :].any()
    mapper = align(ours, theirs, padding=True).mapper
    assert mapper[0, 0] == 1 and mapper[ours.end, theirs.end] == 1
    assert (mapper[: ours.end + 1, theirs.end + 1 :] == 0).all()
    assert (mapper[:, theirs.end + 1 :].sum(0) == 1).all()


def test_the_same_prompt_is_aligned_with_itself(tokenizer):
    words = Words.of(tokenizer, "a red house at noon")
    assert torch.equal(align(words, words, padding=True).mapper, torch.eye(words.length))


def test_a_tokenizer_without_offsets_is_named(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="Slow gives no character offsets"):
        Words.of(Slow(), "a house")
