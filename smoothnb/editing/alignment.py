"""Alignment of two prompts: the tokens of each word, and the matching words of the other prompt."""

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
    """Words of a prompt and their tokens.

    Attributes:
        texts: Words and punctuation marks, in lower case.
        tokens: Indices of each word's tokens; empty for words that were truncated.
        length: Number of tokens of the encoder, including padding.
        end: Index of the end token.
    """

    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    length: int
    end: int

    @classmethod
    def of(cls, tokenizer, prompt: str) -> "Words":
        """Splits a prompt into words, and finds their tokens by character offsets."""
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} gives no character offsets: load the pipeline with a "
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
        """Token indices of all occurrences of a word or of several consecutive words; empty if there are none."""
        sought = [match.group().lower() for match in WORD.finditer(phrase)]
        starts = [i for i in range(len(self.texts)) if sought and list(self.texts[i : i + len(sought)]) == sought]
        return tuple(token for i in starts for numbers in self.tokens[i : i + len(sought)] for token in numbers)


@dataclass(frozen=True)
class Alignment:
    """Matching tokens of a source and a target prompt.

    Attributes:
        mapper: Weights that distribute the attention to source tokens over target tokens.
        found: Whether a target token has a match; added words have none.
    """

    mapper: Float[Tensor, "source target"]
    found: Bool[Tensor, " target"]


def align(source: Words, target: Words, padding: bool = False) -> Alignment:
    """Aligns two prompts word by word (Hertz et al. 2022): unchanged, replaced and added words.

    Words are aligned like two versions of a text. An unchanged word matches itself, even if its position differs. A
    replaced word matches the word that it replaces, whose attention is divided if the numbers of tokens differ. An
    added word has no match.

    Args:
        source: The prompt of the picture.
        target: The prompt of its edit.
        padding: Whether start, end and padding tokens are matched too.
    """
    mapper = torch.zeros(source.length, target.length, dtype=torch.float32)

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
        # Padding tokens keep their position; no word of a longer source matches padding.
        for i in range(target.end + 1, target.length):
            mapper[min(max(i, source.end + 1), source.length - 1), i] = 1
    return Alignment(mapper, mapper.sum(0) > 0)
