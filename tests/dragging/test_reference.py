"""Reference attention, compared with diffusers' own attention as the oracle."""

import torch

from smoothnb.dragging.reference import _ReferenceProcessor, reference_attention, self_attention_layers


def layer(unet, name):
    module = unet
    for part in name.removesuffix(".processor").split("."):
        module = module[int(part)] if part.isdigit() else getattr(module, part)
    return module


@torch.no_grad()
def test_all_of_a_group_ask_and_its_first_answers(tiny_pipe):
    attention = layer(tiny_pipe.unet, self_attention_layers(tiny_pipe.unet)[-1])
    width = attention.to_q.in_features
    hidden = torch.randn(6, 9, width)
    found = _ReferenceProcessor(2)(attention, hidden)
    for group in (0, 3):
        reference = hidden[group : group + 1].expand(3, -1, -1)
        # As cross-attention to the reference.
        expected = attention(hidden[group : group + 3], encoder_hidden_states=reference)
        torch.testing.assert_close(found[group : group + 3], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_reference_beside_itself_changes_nothing_and_layers_below_stay(tiny_pipe):
    unet = tiny_pipe.unet
    x, texts = torch.randn(1, 4, 8, 8), torch.randn(1, 32, 16)
    plain = unet(x, 400, encoder_hidden_states=texts).sample
    other = torch.cat([x, torch.randn(1, 4, 8, 8)])
    own = dict(unet.attn_processors)
    with reference_attention(unet, 1, 0):
        both = unet(x.expand(2, -1, -1, -1), 400, encoder_hidden_states=texts.expand(2, -1, -1)).sample
        lent = unet(other, 400, encoder_hidden_states=texts.expand(2, -1, -1)).sample
    torch.testing.assert_close(both, plain.expand(2, -1, -1, -1), atol=1e-5, rtol=1e-4)
    alone = unet(other, 400, encoder_hidden_states=texts.expand(2, -1, -1)).sample
    torch.testing.assert_close(lent[0], alone[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(lent[1], alone[1], atol=1e-4)
    assert unet.attn_processors == own
    names = self_attention_layers(unet)
    with reference_attention(unet, 1, 1):
        changed = [
            name for name, processor in unet.attn_processors.items() if isinstance(processor, _ReferenceProcessor)
        ]
    assert sorted(changed) == sorted(names[1:])


def test_layers_count_from_the_entrance_and_the_default_is_the_published_share(tiny_pipe):
    names = self_attention_layers(tiny_pipe.unet)
    assert [name.split("_")[0] for name in names] == ["down", "mid", "up", "up"]
    with reference_attention(tiny_pipe.unet, 1):
        changed = [n for n, p in tiny_pipe.unet.attn_processors.items() if isinstance(p, _ReferenceProcessor)]
    assert sorted(changed) == sorted(names[2:])
