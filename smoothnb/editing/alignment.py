"""Which tokens a word of a prompt is, and which word of another prompt it stands for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from jaxtyping import Bool, Float
from torch import Tensor

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Words:
    """A prompt as a text encoder sees it.

    Attributes:
        texts: Its words and punctuation marks, in small letters.
        tokens: The numbers of the tokens of each, counted from the start token; none for a word that was cut off.
        length: How many tokens the encoder is given, padding included.
        end: The number of the token that ends the prompt.
    """

    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    length: int
    end: int

    @classmethod
    def of(cls, tokenizer, prompt: str) -> "Words":
        """Splits a prompt into words, and finds their tokens by the characters that they were made of."""
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} cannot say which characters a token was made of: load the pipeline with a "
                "fast tokenizer, CLIPTokenizerFast"
            )
        length = tokenizer.model_max_length
        encoded = tokenizer(
            prompt, padding="max_length", max_length=length, truncation=True, return_offsets_mapping=True
        )
        words = list(WORD.finditer(prompt))
        spans = encoded["offset_mapping"]
        tokens = [
            tuple(i for i, (start, stop) in enumerate(spans) if start < word.end() and stop > word.start())
            for word in words
        ]
        end = 1 + max((number for numbers in tokens for number in numbers), default=0)
        return cls(tuple(word.group().lower() for word in words), tuple(tokens), length, end)

    def find(self, phrase: str) -> tuple[int, ...]:
        """The tokens of a word, or of several in a row, wherever the prompt has them; empty where it has not."""
        sought = [match.group().lower() for match in WORD.finditer(phrase)]
        starts = [i for i in range(len(self.texts)) if sought and list(self.texts[i : i + len(sought)]) == sought]
        return tuple(token for i in starts for numbers in self.tokens[i : i + len(sought)] for token in numbers)


@dataclass(frozen=True)
class Alignment:
    """Where in the source prompt each token of the target prompt has its like.

    Attributes:
        mapper: Of the source's attention to its tokens, how much goes to each token of the target.
        found: Whether a token of the target has its like; what the target adds has none.
    """

    mapper: Float[Tensor, "source target"]
    found: Bool[Tensor, " target"]


def align(source: Words, target: Words, padding: bool = False) -> Alignment:
    """Aligns two prompts word by word (Hertz et al. 2022): what stayed, what took another's place, what was added.

    The words are compared as two versions of a text are. A word that stayed has its own tokens for likes, wherever they
    have moved; one that took another's place has that word's, which share their attention where their numbers differ;
    one that was added has none.

    Args:
        source: The prompt of the picture.
        target: The prompt of its edit.
        padding: Whether start, end and padding tokens have likes too.
    """
    mapper = torch.zeros(source.length, target.length)

    def pair(ours: Sequence[int], theirs: Sequence[int]) -> None:
        if len(ours) == len(theirs):
            mapper[list(ours), list(theirs)] = 1
        elif ours and theirs:
            mapper[torch.tensor(ours)[:, None], torch.tensor(theirs)] = 1 / len(theirs)

    for kind, a, b, c, d in SequenceMatcher(None, source.texts, target.texts, autojunk=False).get_opcodes():
        ours, theirs = source.tokens[a:b], target.tokens[c:d]
        if len(ours) == len(theirs):
            for numbers in zip(ours, theirs, strict=True):
                pair(*numbers)
        elif kind == "replace":
            pair([i for numbers in ours for i in numbers], [i for numbers in theirs for i in numbers])
    if padding:
        pair([0, source.end], [0, target.end])
        # What pads both prompts keeps its place in the row; of a longer source's words, none becomes padding.
        for i in range(target.end + 1, target.length):
            mapper[min(max(i, source.end + 1), source.length - 1), i] = 1
    return Alignment(mapper, mapper.sum(0) > 0)
