"""Alignment of two prompts: the tokens of each word, and the matching words of the other prompt."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Words:
    """Words of a prompt and their tokens.

    Attributes:
        texts: Words and punctuation marks as the tokenizer spells them. Consecutive digits are one word.
        tokens: Indices of each word's tokens; empty for words that were truncated.
        length: Number of tokens of the encoder, including padding.
        end: Index of the end token.
        tokenizer: The text encoder's tokenizer.
    """

    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    length: int
    end: int
    tokenizer: object = field(repr=False, compare=False)

    def __str__(self) -> str:
        return " ".join(text for text, tokens in zip(self.texts, self.tokens, strict=True) if tokens)

    @classmethod
    def of(cls, tokenizer, prompt: str) -> "Words":
        """Splits a prompt into words, textual inversions of several tokens spelled out, and finds their tokens."""
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} gives no character offsets: load the pipeline with a "
                "fast tokenizer, CLIPTokenizerFast"
            )
        prompt = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, tokenizer)
        encoded = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        words: list[list[int]] = []
        last, digits = None, -1
        for number, (word, (start, stop)) in enumerate(zip(encoded.word_ids(), encoded["offset_mapping"], strict=True)):
            numeric = prompt[start:stop].isnumeric()
            if word is None:
                continue
            if word == last or (numeric and start == digits):
                words[-1].append(number)
            else:
                words.append([number])
            last, digits = word, stop if numeric else -1
        ids, length = encoded["input_ids"], tokenizer.model_max_length
        texts = tuple(tokenizer.decode([ids[i] for i in word]).replace(" ", "").lower() for word in words)
        tokens = tuple(tuple(i for i in word if i < length - 1) for word in words)
        return cls(texts, tokens, length, min(len(ids), length) - 1, tokenizer)

    def find(self, phrase: str) -> tuple[int, ...]:
        """Token indices of all occurrences of a word or of several consecutive words that the encoder sees."""
        sought = Words.of(self.tokenizer, phrase).texts
        places = [range(i, i + len(sought)) for i in range(len(self.texts)) if sought]
        places = [at for at in places if self.texts[at.start : at.stop] == sought and all(self.tokens[i] for i in at)]
        return tuple(number for at in places for i in at for number in self.tokens[i])


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
