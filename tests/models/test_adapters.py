"""Adapters of other kinds and origins keep their state, whatever is done to the smooth LoRA."""

import contextlib

import peft
import pytest
import torch
from diffusers.training_utils import _collate_lora_metadata
from peft.utils import get_peft_model_state_dict
from tiny import build_tiny_pipeline, with_lora

import smoothnb as sn
from smoothnb.models.load import fingerprint
from smoothnb.models.lora import blended, stacked_lora
from smoothnb.models.lora_files import Lora, Pair

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")


@torch.no_grad()
def answer(pipe):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    embeds = pipe.text_encoder(torch.arange(14).reshape(2, 7)).last_hidden_state
    return pipe.unet(noise, 300, embeds).sample


def smooth_lora() -> Lora:
    return sn.lora_of(with_lora(build_tiny_pipeline()))


def add(pipe, name: str, kind=peft.LoraConfig, part: str = "unet", **config) -> None:
    """A trained adapter, made by peft."""
    torch.manual_seed(len(name))
    config = {"target_modules": ["to_q", "to_v", "ff.net.2"], **config}
    getattr(pipe, part).add_adapter(kind(r=2, **config), adapter_name=name)
    with torch.no_grad():
        for key, p in getattr(pipe, part).named_parameters():
            if f".{name}" in key and "magnitude" not in key:
                p.copy_(0.3 * torch.randn(p.shape))


def load(pipe, folder, **config) -> None:
    """A style for UNet and text encoder, saved and loaded by diffusers."""
    other = build_tiny_pipeline()
    add(other, "default", **config)
    add(other, "default", part="text_encoder", target_modules=["q_proj", "v_proj"])
    parts = {"unet": other.unet, "text_encoder": other.text_encoder}
    other.save_lora_weights(
        folder, get_peft_model_state_dict(other.unet), get_peft_model_state_dict(other.text_encoder),
        **_collate_lora_metadata(parts),
    )  # fmt: skip
    pipe.load_lora_weights(str(folder), adapter_name="style")


def several(pipe, folder) -> None:
    load(pipe, folder)
    add(pipe, "second", target_modules=["to_k", "conv1"])
    add(pipe, "third")
    pipe.set_adapters(["style", "second"], [0.7, 1.6])


def by_block(pipe, folder) -> None:
    load(pipe, folder)
    pipe.set_adapters("style", {"unet": {"down": 0.3, "up": 2.0}, "text_encoder": 0.4})


def inactive(pipe, folder) -> None:
    load(pipe, folder)
    pipe.unet.set_adapters([])


def wrapped(pipe, folder) -> None:
    pipe.unet = peft.get_peft_model(pipe.unet, peft.LoraConfig(target_modules=["to_k"], init_lora_weights=False))


def fused(pipe, folder) -> None:
    load(pipe, folder)
    pipe.fuse_lora()
    pipe.unload_lora_weights()


STYLES = {
    "loaded": load, "several": several, "by block": by_block, "inactive": inactive, "wrapped": wrapped, "fused": fused,
    "rank-stabilized": lambda pipe, _: add(pipe, "style", use_rslora=True),
    "elsewhere": lambda pipe, _: add(pipe, "style", target_modules=["conv_in", "time_emb_proj"]),
    "injected": lambda pipe, _: peft.inject_adapter_in_model(
        peft.LoraConfig(target_modules=["to_q"], init_lora_weights=False), pipe.unet, "style"
    ),
}  # fmt: skip
BASED = {
    "dora": lambda pipe, _: add(pipe, "style", use_dora=True),
    "loha": lambda pipe, _: add(pipe, "style", peft.LoHaConfig),
    "lokr": lambda pipe, _: add(pipe, "style", peft.LoKrConfig),
    "modules to save": lambda pipe, _: add(pipe, "style", modules_to_save=["conv_out"]),
}
"""Styles whose effect depends on the weights that they stand on, or that hold whole weights."""


def state(pipe) -> dict:
    """All that peft knows about adapters other than the smooth one."""
    found = {}
    for part in (pipe.unet, pipe.text_encoder):
        for name, module in part.named_modules():
            if "_active_adapter" in vars(module):
                active = [n for n in module.active_adapters if n != "smooth"]
                scales = {k: v for k, v in getattr(module, "scaling", {}).items() if k != "smooth"}
                grads = {k: p.requires_grad for k, p in module.named_parameters() if "smooth" not in k and "style" in k}
                if active or scales:
                    found[name.replace(".base_layer", "")] = active, scales, module.disable_adapters, grads
    return found


@pytest.mark.parametrize("style", [*STYLES, *BASED])
def test_other_adapters_keep_their_state_and_weight(style, tmp_path):
    pipe = build_tiny_pipeline()
    (STYLES | BASED)[style](pipe, tmp_path)
    before, kept = answer(pipe), state(pipe)
    assert not torch.equal(before, answer(build_tiny_pipeline()))
    lora = smooth_lora()
    sn.import_lora(pipe, lora)
    both = answer(pipe)
    assert not torch.allclose(both, before, atol=1e-2)
    if style in STYLES:
        other = build_tiny_pipeline()
        STYLES[style](other, tmp_path)
        modules = dict(getattr(other.unet, "get_base_model", lambda: other.unet)().named_modules())
        for name, pair in lora.pairs.items():
            modules[name].weight.data += pair.alpha / pair.rank * pair.up @ pair.down
        torch.testing.assert_close(both, answer(other), rtol=1e-4, atol=1e-4)
    assert {k: v for k, v in state(pipe).items() if k in kept} == kept
    with blended(pipe, 0.0):
        assert torch.equal(answer(pipe), before)
    assert torch.equal(answer(pipe), both)
    sn.set_smoothness(pipe, 0)
    assert torch.equal(answer(pipe), before)
    assert {k: v for k, v in state(pipe).items() if k in kept} == kept
    mark, modules = fingerprint(pipe), [id(module) for module in pipe.unet.modules()]
    trained = [p.requires_grad for p in pipe.unet.parameters()]
    with contextlib.suppress(ZeroDivisionError), stacked_lora(pipe.unet, 2, "more") as weights:
        assert torch.equal(answer(pipe), before)
        assert {p for p in pipe.unet.parameters() if p.requires_grad} == set(weights)
        for p in weights:
            p.data.normal_()
        assert not torch.allclose(answer(pipe), before, atol=1e-2)
        raise ZeroDivisionError
    assert torch.equal(answer(pipe), before) and fingerprint(pipe) == mark
    assert [id(module) for module in pipe.unet.modules()] == modules
    assert [p.requires_grad for p in pipe.unet.parameters()] == trained
    with pytest.raises(ValueError, match="adapter named 'smooth' already"), stacked_lora(pipe.unet, 4, "smooth"):
        pass
    sn.set_smoothness(pipe, 1)
    assert torch.equal(answer(pipe), both)
    assert {k: v for k, v in state(pipe).items() if k in kept} == kept
    assert sorted(sn.lora_of(pipe).pairs) == sorted(lora.pairs)


@pytest.mark.parametrize("style", ["nothing", *STYLES, *BASED])
@pytest.mark.parametrize("how", ["weights", "alphas"])
def test_a_lora_without_effect_is_refused_on_top_of_any_other(style, how, tmp_path):
    pipe = build_tiny_pipeline()
    (STYLES | BASED).get(style, lambda *_: None)(pipe, tmp_path)
    before, kept, mark = answer(pipe), state(pipe), fingerprint(pipe)
    lora = smooth_lora()
    zero = {n: Pair(p.down, p.up * (how != "weights"), p.alpha * (how != "alphas")) for n, p in lora.pairs.items()}
    with pytest.raises(ValueError, match="changes nothing"):
        sn.import_lora(pipe, Lora(zero))
    assert torch.equal(answer(pipe), before) and state(pipe) == kept and fingerprint(pipe) == mark


@pytest.mark.parametrize("part", ["attn2.to_q", "attn2.to_k", "attn1.to_q"])
def test_a_lora_of_queries_or_keys_alone_has_an_effect(part):
    pipe = build_tiny_pipeline()
    lora = Lora({name: pair for name, pair in smooth_lora().pairs.items() if part in name})
    sn.import_lora(pipe, lora)
    assert sn.lora_of(pipe).pairs.keys() == lora.pairs.keys()


def test_set_smoothness_switches_the_smooth_lora_on_again(tmp_path):
    pipe = build_tiny_pipeline()
    several(pipe, tmp_path)
    sn.import_lora(pipe, smooth_lora())
    assert pipe.unet.active_adapters() == ["style", "second", "smooth"]
    both = answer(pipe)
    pipe.set_adapters(["style", "second"], [0.7, 1.6])
    assert not torch.equal(answer(pipe), both)
    with blended(pipe, 1):
        assert torch.equal(answer(pipe), both)
    assert pipe.unet.active_adapters() == ["style", "second"]
    sn.set_smoothness(pipe, 1)
    assert torch.equal(answer(pipe), both)


@pytest.mark.parametrize(("how", "message"), [("disable_lora", "are disabled"), ("fuse_lora", "style is fused")])
def test_disabled_and_fused_adapters_are_refused_by_name(how, message, tmp_path):
    lora = smooth_lora()
    pipe = build_tiny_pipeline()
    load(pipe, tmp_path)
    getattr(pipe, how)()
    before, kept = answer(pipe), state(pipe)
    with pytest.raises(ValueError, match=message):
        sn.import_lora(pipe, lora)
    with pytest.raises(ValueError, match=message), stacked_lora(pipe.unet, 2, "more"):
        pass
    assert torch.equal(answer(pipe), before) and state(pipe) == kept
    pipe.enable_lora() if how == "disable_lora" else pipe.unfuse_lora()
    sn.import_lora(pipe, lora)
    getattr(pipe, how)()
    before, message = answer(pipe), message.replace("style is", "style and smooth is")
    with pytest.raises(ValueError, match=message):
        sn.set_smoothness(pipe, 0.5)
    with pytest.raises(ValueError, match=message), blended(pipe, 0.5):
        pass
    assert torch.equal(answer(pipe), before)
    pipe.enable_lora() if how == "disable_lora" else pipe.unfuse_lora()
    sn.set_smoothness(pipe, 0.5)
    assert not torch.allclose(answer(pipe), before, atol=1e-2)


def test_fingerprints_notice_every_state_of_adapters(tmp_path):
    pipe = build_tiny_pipeline()
    marks = [fingerprint(pipe)]
    load(pipe, tmp_path)
    for change in (
        lambda: pipe.set_adapters("style", 0.7),
        lambda: pipe.set_adapters("style", {"unet": 0.7, "text_encoder": 0.2}),
        lambda: pipe.set_adapters("style", {"unet": {"down": 0.3, "mid": 1.0, "up": 1.0}}),
        pipe.disable_lora,
        lambda: (pipe.enable_lora(), pipe.unet.set_adapters([])),
        lambda: (pipe.set_adapters("style", 0.8), add(pipe, "save", modules_to_save=["conv_out"])),
        lambda: pipe.unet.set_adapter("style"),
        lambda: sn.import_lora(pipe, smooth_lora()),
        lambda: sn.set_smoothness(pipe, 0.5),
        lambda: (pipe.unet.delete_adapters("save"), pipe.fuse_lora()),
        pipe.unload_lora_weights,
    ):
        change()
        marks.append(fingerprint(pipe))
    assert len(set(marks)) == len(marks), marks
    pipe = build_tiny_pipeline()
    load(pipe, tmp_path)
    pipe.set_adapters("style", 0.7)
    assert fingerprint(pipe) == marks[1]


@pytest.mark.parametrize("config", [{"use_dora": True}, {"modules_to_save": ["conv_out"]}, {"kind": peft.LoHaConfig}])
def test_a_smooth_adapter_of_another_kind_is_not_exported(config):
    pipe = build_tiny_pipeline()
    add(pipe, "smooth", **config)
    with pytest.raises(ValueError, match="of another kind"):
        sn.lora_of(pipe)


def test_a_smooth_lora_of_the_text_encoder_is_refused(tmp_path):
    pipe = build_tiny_pipeline()
    load(build_tiny_pipeline(), tmp_path)
    pipe.load_lora_weights(str(tmp_path), adapter_name="smooth")
    before = fingerprint(pipe)
    for job in (lambda: sn.set_smoothness(pipe, 0), lambda: sn.lora_of(pipe)):
        with pytest.raises(ValueError, match="text encoder too"):
            job()
    assert fingerprint(pipe) == before
