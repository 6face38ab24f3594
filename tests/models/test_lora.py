"""A LoRA that is stacked on others for a while."""

import contextlib

import pytest
import torch

from smoothnb.models.load import fingerprint, load_pipeline
from smoothnb.models.lora import set_smoothness, stacked_lora


@torch.no_grad()
def run(pipe):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 16, 16, generator=generator)
    return pipe.unet(x, 500, encoder_hidden_states=torch.ones(1, 32, 128)).sample


@pytest.mark.parametrize("smooth", [False, True])
def test_a_stacked_lora_works_on_top_and_is_gone_afterwards(smooth):
    pipe = load_pipeline("postcard", smooth=smooth)
    if smooth:
        set_smoothness(pipe, 0.5)
    before, mark = run(pipe), fingerprint(pipe)
    modules = [id(module) for module in pipe.unet.modules()]
    trained = [p.requires_grad for p in pipe.unet.parameters()]
    with contextlib.suppress(ZeroDivisionError), stacked_lora(pipe.unet, 4, "more") as weights:
        torch.testing.assert_close(run(pipe), before)
        assert {p for p in pipe.unet.parameters() if p.requires_grad} == set(weights)
        for p in weights:
            p.data.normal_()
        assert not torch.allclose(run(pipe), before, atol=0.1)
        raise ZeroDivisionError
    assert torch.equal(run(pipe), before) and fingerprint(pipe) == mark
    assert [id(module) for module in pipe.unet.modules()] == modules
    assert [p.requires_grad for p in pipe.unet.parameters()] == trained
    assert pipe.get_active_adapters() == (["smooth"] if smooth else [])


def test_a_name_that_is_taken_is_refused():
    pipe = load_pipeline("postcard", smooth=True)
    before = run(pipe)
    with pytest.raises(ValueError, match="adapter named 'smooth' already"), stacked_lora(pipe.unet, 4, "smooth"):
        pass
    assert torch.equal(run(pipe), before)
