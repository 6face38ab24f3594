import random
import re

import pytest
from transformers import CLIPTokenizer

from smoothnb.postcards.captions import FUNCTION_WORDS, GRAMMAR, build_tokenizer, caption, stated, vocabulary
from smoothnb.postcards.scene import FACTORS, Scene
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_captions_state_only_what_is_true():
    rng = random.Random(0)
    for scene in held_out_scenes(300):
        truth = {f: getattr(scene, f) for f in FACTORS}
        said = stated(caption(scene, rng))
        assert said.items() <= truth.items()
        assert not ("colour" in said and scene.thing == "none")


def test_captions_leave_factors_out_at_random():
    rng, scene = random.Random(0), Scene(thing="house")
    said = [set(stated(caption(scene, rng))) for _ in range(400)]
    for factor, share in (("time", 0.75), ("weather", 0.5), ("colour", 0.72), ("thing", 0.9)):
        assert abs(sum(factor in s for s in said) / 400 - share) < 0.08, factor
    assert len({caption(scene, rng) for _ in range(200)}) > 150


def test_each_phrase_states_its_value_and_nothing_else():
    for factor, values in GRAMMAR.items():
        for value, phrases in values.items():
            for phrase in phrases:
                assert stated(phrase) == {factor: value}


def test_stated_reads_any_text():
    assert stated("A SCARLET cottage, by moonlight!") == {"colour": "red", "thing": "house", "time": "night"}
    assert stated("a dragon") == {} == stated("")
    assert stated("a red and blue house")["colour"] == "red"


def test_every_caption_word_is_one_token(tokenizer):
    assert all(len(tokenizer.tokenize(word)) == 1 for word in vocabulary()["words"])


def test_any_text_tokenizes_and_comes_back(tokenizer):
    for text in ("a red house", "ein Drache \u9f99 \U0001f409", "x" * 20):
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[1:-1], "no text is unknown"
        assert tokenizer.decode(ids, skip_special_tokens=True) == text.lower()


def test_captions_fit_the_tokenizer_and_survive_saving(tokenizer, tmp_path):
    prompts = held_out_prompts(200)
    assert max(len(tokenizer(p).input_ids) for p in prompts) <= tokenizer.model_max_length
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded(prompts).input_ids == tokenizer(prompts).input_ids
    assert loaded.model_max_length == tokenizer.model_max_length


def test_vocabulary_lists_every_word_of_captions_and_topics_state_something():
    known = vocabulary()
    for prompt in held_out_prompts(300):
        assert set(re.findall("[a-z]+", prompt)) <= set(known["words"])
    for topic, words in known["topics"].items():
        assert words and all(topic in stated(word) for word in words)
        assert not FUNCTION_WORDS & set(words)
