"""Which tokens a word of a prompt is, and which word of another prompt it stands for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Words:
    """A prompt as a text encoder sees it.

    Attributes:
        texts: Its words and punctuation marks as the tokenizer splits and spells them. Digits in a row are one word.
        tokens: The numbers of the tokens of each, counted from the start token; none for a word that was cut off.
        length: How many tokens the encoder is given, padding included.
        end: The number of the token that ends the prompt.
        tokenizer: Of the text encoder.
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
                f"{type(tokenizer).__name__} cannot say which characters a token was made of: load the pipeline with a "
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
        """The tokens of a word, or of several in a row, wherever the encoder sees them; empty where it does not."""
        sought = Words.of(self.tokenizer, phrase).texts
        places = [range(i, i + len(sought)) for i in range(len(self.texts)) if sought]
        places = [at for at in places if self.texts[at.start : at.stop] == sought and all(self.tokens[i] for i in at)]
        return tuple(number for at in places for i in at for number in self.tokens[i])


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
