"""What postcards are called: a small grammar with synonyms that leaves factors out, and a tokenizer that knows it."""

import json
import random
import re

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from recipes.postcards.world.scene import Scene, edit

GRAMMAR = {
    "time": {
        "dawn": ("at dawn", "at daybreak", "at sunrise"),
        "morning": ("in the morning",),
        "noon": ("at noon", "at midday"),
        "afternoon": ("in the afternoon", "in golden light"),
        "sunset": ("at sunset", "in the evening"),
        "dusk": ("at dusk", "at twilight"),
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
        "hazy": ("in light haze", "in hazy weather"),
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
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green", "emerald"),
        "blue": ("blue", "azure"),
        "purple": ("purple", "violet"),
        "white": ("white", "ivory"),
    },
}
"""Phrases that state each value of each topic."""

HOURS = {
    "dawn": (4.8, 7.0), "morning": (7.6, 10.4), "noon": (11.0, 14.2), "afternoon": (15.2, 17.6),
    "sunset": (18.0, 19.2), "dusk": (19.5, 20.5), "night": (21.0, 28.0),
}  # fmt: skip
HUES = {
    "red": (-20, 15), "orange": (22, 40), "yellow": (50, 75), "green": (100, 155), "blue": (195, 245),
    "purple": (265, 310),
}  # fmt: skip
"""Regions of the hour and of the hue that each name stands for; between them nothing has a name."""
WHITE, PURE = 0.65, 0.5
"""Paint is called white from the first lightness on, and by its hue below the second."""
WEATHERS = {
    "clear": ((0, 0.3), (0, 0.15)), "hazy": ((0, 0.3), (0.25, 0.44)),
    "cloudy": ((0.5, 1), (0, 0.25)), "misty": ((0, 1), (0.45, 1)),
}  # fmt: skip
"""Ranges of cloud cover and of mist that each name stands for."""

FUNCTION_WORDS = {"a", "an", "the", "at", "in", "on", "by", "under", "among"} | {
    "weather", "sky", "hot", "air", "landscape", "view", "light",
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

SPOKEN = {"thing": 0.93, "land": 0.9, "colour": 0.75, "time": 0.7, "weather": 0.5}
"""How often a caption states each topic that has a name. What it leaves out is for the noise to decide."""


def _within(value: float, low: float, high: float, period: float) -> bool:
    return (value - low) % period <= high - low


def _region(topic: str, value: float, regions: dict, period: float) -> dict[str, str]:
    """The name of the region that a value lies in, by topic; empty where it lies between two."""
    return {topic: name for name in regions if _within(value, *regions[name], period)}  # noqa: B035


def names(scene: Scene) -> dict[str, str]:
    """What each topic of a scene is called; topics that lie between two names are left out."""
    found = {"thing": scene.thing, "land": scene.land}
    found |= _region("time", scene.hour, HOURS, 24)
    if scene.thing != "none":
        if scene.lightness >= WHITE:
            found["colour"] = "white"
        elif scene.lightness <= PURE:
            found |= _region("colour", scene.hue, HUES, 360)
    for name, (clouds, mist) in WEATHERS.items():
        if clouds[0] <= scene.clouds <= clouds[1] and mist[0] <= scene.mist <= mist[1]:
            found["weather"] = name
    return found


def caption(scene: Scene, rng: random.Random) -> str:
    """Describes a scene in words, leaving topics out at random.

    Args:
        scene: What to describe.
        rng: Decides what is said, in which words and order.

    Returns:
        For example "a scarlet cottage in winter, at dusk".
    """
    named = names(scene)
    said = {topic for topic, share in SPOKEN.items() if rng.random() < share} & named.keys()

    def phrase(topic: str) -> str:
        return rng.choice(GRAMMAR[topic][named[topic]])

    if "thing" not in said:
        subject = rng.choice(("a landscape", "a postcard", "a view"))
    else:
        subject = _one(f"{phrase('colour')} {phrase('thing')}" if "colour" in said else phrase("thing"))
    around = [topic for topic in ("time", "land", "weather") if topic in said]
    rng.shuffle(around)
    parts = [phrase(topic) for topic in around]
    if parts and rng.random() < 0.2:
        return f"{parts[0]}, {' '.join([subject, *parts[1:]])}"
    comma = rng.random() < 0.4
    return (", " if comma else " ").join([subject, *parts])


def full_caption(scene: Scene) -> str:
    """Describes a scene and leaves nothing out that has a name.

    For example "a red house in a meadow at sunset in clear weather".
    """
    named = names(scene)
    thing, *around = (GRAMMAR[t][named[t]][0] for t in ("thing", "land", "time", "weather") if t in named)
    return " ".join([_one(f"{named['colour']} {thing}" if "colour" in named else thing), *around])


def _one(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _nearest(value: float, low: float, high: float, period: float | None = None, margin: float = 0.25) -> float:
    """The value itself where it lies in a region, else the nearest point a little inside it."""
    inside = margin * (high - low)
    if period is None:
        return value if low <= value <= high else min(max(value, low + inside), high - inside)
    if _within(value, low, high, period):
        return value
    from_middle = (value - (low + high) / 2 + period / 2) % period - period / 2
    return (high - inside if from_middle > 0 else low + inside) % period


def _changes(scene: Scene, topic: str, name: str) -> dict:
    """Fields of a scene that change so that a topic has a name."""
    if topic == "time":
        return {"hour": _nearest(scene.hour, *HOURS[name], 24)}
    if topic == "colour":
        if name == "white":
            return {"lightness": _nearest(scene.lightness, WHITE, 1.0)}
        return {"hue": _nearest(scene.hue, *HUES[name], 360), "lightness": _nearest(scene.lightness, 0.0, PURE)}
    if topic == "weather":
        clouds, mist = WEATHERS[name]
        return {"clouds": _nearest(scene.clouds, *clouds), "mist": _nearest(scene.mist, *mist)}
    return {topic: name}


def edit_as_stated(scene: Scene, prompt: str) -> Scene:
    """The nearest scene that a prompt describes: the true answer to an edit in words.

    Raises:
        ValueError: If the changed scene cannot be (a sailboat on a meadow).
    """
    named = names(scene)
    changes = [_changes(scene, topic, name) for topic, name in stated(prompt).items() if named.get(topic) != name]
    return edit(scene, **{field: value for change in changes for field, value in change.items()})


def agrees(seen, topic: str, name: str) -> bool:
    """Whether a scene or a reading may be called by a name, with some margin around the regions of continuous factors.

    Args:
        seen: A `Scene` or a `Reading`.
        topic: A topic of `GRAMMAR`.
        name: One of its values.
    """
    if topic in ("thing", "land"):
        return getattr(seen, topic) == name
    if topic == "time":
        low, high = HOURS[name]
        return _within(seen.hour, low - 0.5, high + 0.5, 24)
    if topic == "colour":
        if name == "white":
            return seen.lightness >= WHITE - 0.1
        low, high = HUES[name]
        return seen.lightness <= PURE + 0.1 and _within(seen.hue, low - 10, high + 10, 360)
    clouds, mist = WEATHERS[name]
    return clouds[0] - 0.1 <= seen.clouds <= clouds[1] + 0.1 and mist[0] - 0.07 <= seen.mist <= mist[1] + 0.07


def stated(prompt: str) -> dict[str, str]:
    """What a prompt says about a scene, as far as the grammar knows its words.

    Args:
        prompt: Any text.

    Returns:
        The value of each topic that the prompt names; the first, where it names several.
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
