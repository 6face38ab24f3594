"""What postcards are called: a small grammar with synonyms that leaves factors out, and a tokenizer that knows it."""

import json
import random
import re

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from smoothnb.postcards.scene import Scene, edit

GRAMMAR = {
    "time": {
        "dawn": ("at dawn", "at daybreak", "at sunrise"),
        "noon": ("at noon", "at midday"),
        "sunset": ("at sunset", "at dusk", "in the evening"),
        "night": ("at night", "by moonlight", "under the stars"),
    },
    "land": {
        "meadow": ("in a meadow", "in the fields", "on the grass"),
        "desert": ("in the desert", "among dunes", "on the sand"),
        "snow": ("in the snow", "in winter"),
        "sea": ("at sea", "on the ocean", "on the water"),
    },
    "weather": {
        "clear": ("in clear weather", "under a clear sky"),
        "cloudy": ("under clouds", "under a cloudy sky"),
        "misty": ("in the mist", "in misty weather", "in fog"),
    },
    "thing": {
        "none": ("empty landscape", "empty view"),
        "house": ("house", "cottage", "cabin"),
        "pine": ("pine", "fir", "pine tree"),
        "sailboat": ("sailboat", "sailing boat"),
        "balloon": ("balloon", "hot air balloon"),
        "lighthouse": ("lighthouse", "beacon"),
    },
    "colour": {
        "red": ("red", "scarlet"),
        "yellow": ("yellow", "golden"),
        "green": ("green", "emerald"),
        "blue": ("blue", "azure"),
        "purple": ("purple", "violet"),
        "white": ("white", "ivory"),
    },
}
"""Of each factor and value: the phrases that state it."""

FUNCTION_WORDS = {"a", "an", "the", "at", "in", "on", "by", "under", "among"} | {
    "weather", "sky", "hot", "air", "landscape", "view",
}  # fmt: skip
"""Words of phrases that state nothing by themselves."""

MEANING = {
    word: (factor, value)
    for factor, values in GRAMMAR.items()
    for value, phrases in values.items()
    for phrase in phrases
    for word in phrase.split()
    if word not in FUNCTION_WORDS
}
"""What each key word states."""

SPOKEN = {"thing": 0.9, "colour": 0.8, "time": 0.75, "land": 0.75, "weather": 0.5}
"""How often a caption states each factor. What it leaves out is for the noise to decide."""


def caption(scene: Scene, rng: random.Random) -> str:
    """Describes a scene in words, leaving factors out at random.

    Args:
        scene: What to describe.
        rng: Decides what is said, in which words and order.

    Returns:
        For example "a scarlet cottage in winter, at dusk".
    """
    said = {factor for factor, share in SPOKEN.items() if rng.random() < share}

    def phrase(factor: str) -> str:
        return rng.choice(GRAMMAR[factor][getattr(scene, factor)])

    if "thing" not in said:
        subject = rng.choice(("a landscape", "a postcard", "a view"))
    else:
        coloured = "colour" in said and scene.thing != "none"
        noun = f"{phrase('colour')} {phrase('thing')}" if coloured else phrase("thing")
        subject = _one(noun)
    around = [f for f in ("time", "land", "weather") if f in said]
    rng.shuffle(around)
    parts = [phrase(factor) for factor in around]
    if parts and rng.random() < 0.2:
        return f"{parts[0]}, {' '.join([subject, *parts[1:]])}"
    comma = rng.random() < 0.4
    return (", " if comma else " ").join([subject, *parts])


def full_caption(scene: Scene) -> str:
    """Describes a scene in words and leaves nothing out, as in "a red house in a meadow at sunset in clear weather"."""
    thing, *around = (GRAMMAR[f][getattr(scene, f)][0] for f in ("thing", "land", "time", "weather"))
    return " ".join([_one(thing if scene.thing == "none" else f"{scene.colour} {thing}"), *around])


def _one(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def edit_as_stated(scene: Scene, prompt: str) -> Scene:
    """The same scene with what a prompt states about it: the true answer to an edit in words.

    Raises:
        ValueError: If the changed scene cannot be (a sailboat on a meadow).
    """
    return edit(scene, **{f: value for f, value in stated(prompt).items() if getattr(scene, f) != value})


def stated(prompt: str) -> dict[str, str]:
    """What a prompt says about a scene, as far as the grammar knows its words.

    Args:
        prompt: Any text.

    Returns:
        The value of each factor that the prompt names; the first, where it names several.
    """
    found: dict[str, str] = {}
    for word in re.findall(r"[a-z]+", prompt.lower()):
        if word in MEANING:
            found.setdefault(*MEANING[word])
    return found


def all_phrases() -> list[str]:
    """Every phrase that captions are made of, and what joins them."""
    phrases = [p for values in GRAMMAR.values() for synonyms in values.values() for p in synonyms]
    return [*phrases, "a landscape", "a postcard", "a view", "an", "a", ","]


def vocabulary() -> dict:
    """What the model can know: every word of its captions, and by topic the words that state something."""
    words = sorted({w for p in all_phrases() for w in re.findall(r"[a-z]+", p)})
    topics = {topic: [word for word, (factor, _) in MEANING.items() if factor == topic] for topic in GRAMMAR}
    return {"words": words, "topics": topics}


def build_tokenizer(max_length: int = 32) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte pairs are learned on captions, so that each of their words is one token.

    Args:
        max_length: Tokens of a prompt, the two that mark its ends included.

    Returns:
        A tokenizer for any text: words that captions never use fall apart into bytes.
    """
    blank = CLIPTokenizer()
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = (
        getattr(blank.backend_tokenizer, a) for a in ("normalizer", "pre_tokenizer")
    )
    # Bytes come first, alone and at the end of a word: then no text is ever unknown. The learner would number the
    # latter in the order in which it meets them, another one at every run, and break ties by number.
    letters = sorted(ByteLevel.alphabet())
    letters += [letter + "</w>" for letter in letters]
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=1, show_progress=False, end_of_word_suffix="</w>", special_tokens=letters
    )
    learner.train_from_iterator(all_phrases(), trainer)
    tokens = sorted(learner.get_vocab(), key=learner.token_to_id)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=max_length)
