"""Attention that a source picture lends to its edit (Hertz et al. 2022), and where a word looks."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from smoothnb._utils.pipeline import Pipeline
from smoothnb._utils.temporarily import attending
from smoothnb.editing.alignment import Words, align
from smoothnb.models.parts import device_of


class Control:
    """What `lend` does to a batch of three parts: source pictures, their edits, and the edits without their prompt.

    Args:
        mapper: Of the source's attention to each of its tokens, how much goes to each token of the target.
        found: Which tokens of the target have the source's attention; the others keep their own.
        weights: Factor on the attention to each token of the target.
        tracked: Of source and target: the tokens whose attention is collected. All four on the device of the maps.
        size: Height and width of the latents.

    Attributes:
        words: Whether attention between pixels and words is lent now.
        layout: Whether attention between pixels is lent now.
        blends: Whether there are tracked words, whose place can be asked for.
    """

    def __init__(
        self,
        mapper: Float[Tensor, "edit source target"],
        found: Bool[Tensor, "edit target"],
        weights: Float[Tensor, "edit target"],
        tracked: Bool[Tensor, "2 edit target"],
        size: tuple[int, int],
    ):
        self.mapper, self.found, self.weights, self.tracked, self.size = mapper, found, weights, tracked, size
        self.words = self.layout = True
        self.blends = bool(tracked.any())
        self._seen: Tensor | None = None

    @classmethod
    def of(
        cls,
        pipe: Pipeline,
        sources: Sequence[str],
        targets: Sequence[str],
        size: tuple[int, int],
        blend: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        padding: bool = False,
    ) -> "Control":
        """Aligns prompts, and finds the words to blend and to weigh.

        Args:
            pipe: A diffusers pipeline.
            sources: Prompts of the pictures.
            targets: Prompts of their edits, one for each.
            size: Height and width of the latents.
            blend: Phrases to track, each in some prompt, and some of them for each picture.
            weights: By phrase of a target prompt.
            padding: As in `align`.

        Raises:
            ValueError: If a phrase is in no prompt, or a weight is not finite.
        """
        pairs = [[Words.of(pipe.tokenizer, prompt) for prompt in pair] for pair in zip(sources, targets, strict=True)]
        factors = torch.ones(len(pairs), pairs[0][1].length, dtype=torch.float32)
        for phrase, factor in (weights or {}).items():
            found = [target.find(phrase) for _, target in pairs]
            if not any(found) or not math.isfinite(factor):
                raise ValueError(
                    f"expected finite weights for words of the target prompt ({pairs[0][1]}), got {phrase!r}: {factor}"
                )
            for row, tokens in zip(factors, found, strict=True):
                row[list(tokens)] = factor
        tracked = torch.zeros(2, *factors.shape, dtype=torch.bool)
        for phrase in blend:
            found = [[words.find(phrase) for words in pair] for pair in pairs]
            if not any(tokens for pair in found for tokens in pair):
                raise ValueError(
                    f"{phrase!r} is in no prompt: the source has '{pairs[0][0]}', as far as the text encoder reads it"
                )
            for number, pair in enumerate(found):
                for side, tokens in enumerate(pair):
                    tracked[side, number, list(tokens)] = True
        if len(blend) and not tracked.any(2).any(0).all():
            raise ValueError(f"some picture's prompts have none of the words to blend, {', '.join(blend)}")
        alignments = [align(*pair, padding=padding) for pair in pairs]
        mapper, found = (torch.stack([getattr(a, name) for a in alignments]) for name in ("mapper", "found"))
        return cls(*(x.to(device_of(pipe)) for x in (mapper, found, factors, tracked)), size)

    def lend_words(self, maps: Float[Tensor, "map pixel token"]) -> Tensor:
        """The edits' attention to words replaced by their sources', word by word, and weighed."""
        parts = maps.unflatten(0, (3, len(self.mapper), -1))
        source, target, without = parts
        if self.words:
            lent = torch.einsum("nhps,nst->nhpt", source, self.mapper.to(maps))
            target = torch.where(self.found[:, None, None], lent, target)
        if self.blends:
            self._collect(source, target)
        target = target * self.weights[:, None, None].to(maps)
        return torch.stack([source, target, without]).flatten(0, 2)

    def grid(self, pixels: int) -> tuple[int, int]:
        """Height and width of the UNet's level of so many pixels: each halves the one before, and rounds up.

        Raises:
            ValueError: If there is no such level.
        """
        height, width = self.size
        while height * width > pixels:
            height, width = (height + 1) // 2, (width + 1) // 2
        if height * width != pixels:
            raise ValueError(
                f"cannot tell where attention of {pixels} pixels looks at latents of {self.size[1]}×{self.size[0]}: "
                "expected a UNet whose levels halve height and width, as Stable Diffusion's do"
            )
        return height, width

    def _collect(self, *maps: Tensor) -> None:
        """Adds up where source and edit look at the tracked words; maps of any size are resized to the latents'."""
        grid = self.grid(maps[0].shape[-2])
        total = 0
        for map_, tokens in zip(maps, self.tracked, strict=True):
            seen = (map_.float().mean(1) * tokens[:, None]).sum(-1).unflatten(-1, grid)
            total = total + F.interpolate(seen[:, None], self.size, mode="bilinear")
        self._seen = total if self._seen is None else self._seen + total

    def seen(self) -> Float[Tensor, "edit 1 height width"]:
        """How strongly each place was looked at so far from the tracked words, 1 at the strongest."""
        return self._seen / self._seen.amax((2, 3), keepdim=True)

    def mask(self, threshold: float) -> Bool[Tensor, "edit 1 height width"]:
        """Where the tracked words were looked at so far, at least a share as strongly as anywhere, and next to it."""
        return F.max_pool2d(self.seen(), 3, 1, 1) >= threshold


class _Lending:
    """An attention processor, as diffusers calls them."""

    def __init__(self, control: Control):
        self.control = control

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_: object) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(x) for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        if encoder_hidden_states is not None:
            maps = self.control.lend_words(attn.get_attention_scores(query, key, attention_mask))
            mixed = maps @ value
        else:
            if self.control.layout:
                # With the source's queries and keys, what an edit's pixels look at is what the source's look at.
                query, key = (
                    torch.cat([x[: len(x) // 3], x[: len(x) // 3], x[len(x) // 3 * 2 :]]) for x in (query, key)
                )
            mixed = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(mixed)))


def lend(unet, control: Control) -> AbstractContextManager[None]:
    """Temporarily applies a control to a UNet's attention. Its own processors are restored, after errors too."""
    return attending(unet, _Lending(control))
