"""LoRA files: every form is read, what is read takes effect, and what cannot be is refused."""

import copy
import json
import pickle

import pytest
import torch
from architectures import Architecture, random_pipeline
from diffusers import StableDiffusionPipeline
from original_names import original_unet_name
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny import build_tiny_pipeline, pipeline_state

import smoothnb as sn
from smoothnb.cli import main
from smoothnb.models.lora import TARGETS
from smoothnb.models.lora_files import Lora, Pair, export_lora, read_lora

FOUR_LEVELS = Architecture(
    sample_size=8, channels=(32, 32, 32, 32), heads=2, groups=8, vae_channels=(8, 8, 8, 8), vae_groups=4, text_width=32,
    text_layers=1, text_heads=2, tokens=16, vocabulary=600,
)  # fmt: skip
FORMS = ["lora.down", "lora_A", "bare", "attn_procs", "peft", "kohya"]


@pytest.fixture
def pipe(tiny_folder):
    return sn.load_pipeline(tiny_folder, device="cpu")


def everywhere(unet) -> Lora:
    """A LoRA of every linear layer and convolution, with ranks and alphas of many sizes."""
    generator = torch.Generator().manual_seed(0)
    pairs = {}
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            out, *rest = module.weight.shape
            rank = len(pairs) % 3 + 1
            shapes = (rank, *rest), (out, rank, *[1] * (len(rest) - 1))
            down, up = (0.2 * torch.randn(shape, generator=generator) for shape in shapes)
            pairs[name] = Pair(down, up, len(pairs) % 4 + 0.5)
    return Lora(pairs)


@pytest.fixture
def lora(tiny_pipe):
    """A LoRA of the attention, which every form can hold."""
    pairs = everywhere(tiny_pipe.unet).pairs
    return Lora({name: pair for name, pair in pairs.items() if name.endswith(tuple(TARGETS))})


def plain(lora: Lora) -> Lora:
    """With alpha equal to the rank: all that forms without alphas can hold."""
    return Lora({name: Pair(p.down, p.up, float(p.rank)) for name, p in lora.pairs.items()})


def written(lora: Lora, form: str, folder):
    """The LoRA's file in a form, its keys spelled out here. The old forms hold no alpha: it is the rank."""
    keys = {
        "lora.down": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
        "lora_A": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
        "bare": ("{}.lora.down.weight", "{}.lora.up.weight"),
        "peft": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
        "kohya": ("lora_unet_{}.lora_down.weight", "lora_unet_{}.lora_up.weight"),
    }
    state = {}
    for name, pair in lora.pairs.items():
        if form == "attn_procs":
            block, target = name.removesuffix(".0").rsplit(".", 1)
            down, up = (f"{block}.processor.{target}_lora.{part}.weight" for part in ("down", "up"))
        else:
            own = name.replace(".", "_") if form == "kohya" else name
            down, up = (key.format(own) for key in keys[form])
        state |= {down: pair.down, up: pair.up}
        if form == "kohya":
            state[f"lora_unet_{own}.alpha"] = torch.tensor(pair.alpha)
    file = folder / ("adapter_model.safetensors" if form == "peft" else "pytorch_lora_weights.safetensors")
    save_file(state, file)
    if form == "peft":
        patterns = {name: {n: getattr(p, name) for n, p in lora.pairs.items()} for name in ("rank", "alpha")}
        config = {"r": 2, "lora_alpha": 1.5, "rank_pattern": patterns["rank"], "alpha_pattern": patterns["alpha"]}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return file


def same(ours: Lora, theirs: Lora) -> bool:
    return sorted(ours.pairs) == sorted(theirs.pairs) and all(
        torch.equal(p.down, theirs.pairs[n].down) and torch.equal(p.up, theirs.pairs[n].up)
        and p.alpha == theirs.pairs[n].alpha and p.down.dtype == theirs.pairs[n].down.dtype
        for n, p in ours.pairs.items()
    )  # fmt: skip


@torch.no_grad()
def answer(pipe, width: int = 16):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    return pipe.unet(noise, 300, torch.randn(2, 5, width, generator=generator)).sample


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("whole", [False, True], ids=["file", "folder"])
def test_every_form_is_read_and_works_as_if_it_were_merged(pipe, lora, form, whole, tmp_path):
    expected, merged = lora if form in ("kohya", "peft") else plain(lora), copy.deepcopy(pipe)
    before, file = answer(pipe), written(lora, form, tmp_path)
    found = sn.import_lora(pipe, tmp_path if whole else file)
    assert same(found, expected) and same(sn.lora_of(pipe), expected)
    assert found.form == (form if form in ("attn_procs", "peft", "kohya") else "diffusers")
    assert "rank 1 and 2 and 3, alpha" in str(found)
    for name, pair in expected.pairs.items():
        merged.unet.get_submodule(name).weight.data += pair.alpha / pair.rank * pair.up @ pair.down
    torch.testing.assert_close(answer(pipe), answer(merged), rtol=1e-4, atol=1e-4)
    sn.set_smoothness(pipe, 0)
    assert torch.equal(answer(pipe), before)


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_what_is_exported_is_read_with_the_same_effect_here_and_by_diffusers(pipe, form, tmp_path):
    ours, theirs, lora = copy.deepcopy(pipe), copy.deepcopy(pipe), everywhere(pipe.unet)
    sn.import_lora(pipe, lora)
    file = sn.export_lora(sn.lora_of(pipe), tmp_path / "new" / "lora.safetensors", form)
    sn.import_lora(ours, file)
    theirs.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="smooth")
    wanted = effects(pipe.unet)
    assert wanted.keys() == lora.pairs.keys()
    for found in (ours, theirs):
        torch.testing.assert_close(effects(found.unet), wanted, rtol=1e-5, atol=1e-6)


def effects(unet, adapter: str = "smooth") -> dict:
    """By module, what peft would add to its weights."""
    modules = unet.named_modules()
    return {n: m.get_delta_weight(adapter) for n, m in modules if adapter in getattr(m, "lora_A", {})}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1.5, None], ids=["one alpha", "several"])
def test_round_trips_are_exact(tiny_pipe, lora, dtype, alpha, tmp_path):
    pairs = {n: Pair(p.down.to(dtype), p.up.to(dtype), alpha or p.alpha) for n, p in lora.pairs.items()}
    lora = Lora(pairs, "kohya", {"a": "b"})
    modules = [name for name, _ in tiny_pipe.unet.named_modules()]
    first = read_lora(export_lora(lora, tmp_path / "1.safetensors", "kohya"), modules)
    second = read_lora(export_lora(first, tmp_path / "2.safetensors", "diffusers"))
    third = read_lora(export_lora(second, tmp_path / "3.safetensors", "kohya"), modules)
    assert same(lora, read_lora(export_lora(lora, tmp_path / "0.safetensors", "diffusers")))
    assert same(lora, first) == bool(alpha) and same(first, second) and same(first, third)
    for name, pair in lora.pairs.items():
        torch.testing.assert_close(first.pairs[name].up * first.pairs[name].alpha, pair.up * pair.alpha)
    assert second.form == "diffusers" and third.form == "kohya" and third.metadata == {"a": "b"}


CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 6},
    "rank-stabilized": {"r": 8, "lora_alpha": 8, "use_rslora": True},
    "patterns": {"rank_pattern": {"to_q": 2, "attn2.to_v": 3}, "alpha_pattern": {"attn1.to_k": 1, "to_q": 5}},
    "both": {"use_rslora": True, "rank_pattern": {"to_q": 2}, "alpha_pattern": {r"mid_block\..*\.to_v": 1}},
    "convolutions": {"r": 3, "lora_alpha": 2, "target_modules": ["conv1", "conv_shortcut", "proj_in", "conv_in"]},
    "linear": {"lora_alpha": 3, "target_modules": "all-linear", "lora_dropout": 0.1},
}


@pytest.mark.filterwarnings("ignore:.*rank_pattern.* or .*alpha_pattern", "ignore:.*rslora")
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("writer", ["pipeline", "unet", "peft", "bare peft"])
def test_scales_are_those_that_peft_trained_with(config, writer, tmp_path):
    config = LoraConfig(**{"target_modules": TARGETS, "init_lora_weights": False, **CONFIGS[config]})
    trained = build_tiny_pipeline()
    if writer == "peft":
        trained.unet = get_peft_model(trained.unet, config, "smooth")
        trained.unet.save_pretrained(tmp_path)
        tmp_path /= "smooth"
        trained.unet = trained.unet.get_base_model()
    else:
        trained.unet.add_adapter(config, "smooth")
    layers = get_peft_model_state_dict(trained.unet, adapter_name="smooth")
    if writer == "pipeline":
        metadata = {"unet_lora_adapter_metadata": trained.unet.peft_config["smooth"].to_dict()}
        StableDiffusionPipeline.save_lora_weights(tmp_path, layers, **metadata)
    elif writer == "unet":
        trained.unet.save_lora_adapter(tmp_path, "smooth")
    elif writer == "bare peft":
        save_file(layers, tmp_path / "adapter_model.safetensors")
        trained.unet.peft_config["smooth"].save_pretrained(tmp_path)
    pipe = build_tiny_pipeline()
    lora = sn.import_lora(pipe, tmp_path)
    torch.testing.assert_close(effects(pipe.unet), effects(trained.unet), rtol=1e-5, atol=1e-6)
    again = build_tiny_pipeline()
    file = export_lora(lora, tmp_path / "again" / "lora.safetensors")
    again.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="smooth")
    torch.testing.assert_close(effects(again.unet), effects(trained.unet), rtol=1e-5, atol=1e-6)
    alphas = [
        {name: pair.alpha for name, pair in x.pairs.items()} for x in (lora, sn.lora_of(pipe), sn.lora_of(trained))
    ]
    assert alphas[0] == alphas[1] == pytest.approx(alphas[2])


def test_kohya_files_with_original_names_are_read_and_exported_by_the_command_line(tmp_path, capsys):
    pipe = random_pipeline(FOUR_LEVELS)
    pipe.save_pretrained(tmp_path / "model")
    lora, file, state = everywhere(pipe.unet), tmp_path / "ldm.safetensors", {}
    for name, pair in lora.pairs.items():
        flat = f"lora_unet_{original_unet_name(name, pipe.unet.config)}".replace(".", "_")
        state |= {f"{flat}.lora_down.weight": pair.down, f"{flat}.lora_up.weight": pair.up}
        state[f"{flat}.alpha"] = torch.tensor(pair.alpha)
    save_file(state, file)
    assert same(sn.import_lora(pipe, file), lora)
    command = ["export", "--lora", str(file), "--output", str(tmp_path / "new.safetensors")]
    with pytest.raises(ValueError, match="give a --model that it fits"):
        main(command)
    with pytest.raises(ValueError, match="for another architecture"):
        main([*command, "--model", "postcard"])
    assert not (tmp_path / "new.safetensors").exists()
    main([*command, "--model", str(tmp_path / "model")])
    assert "rank 1 and 2 and 3, alpha 0.5 and 1.5 and 2.5 and 3.5, read as kohya; wrote" in capsys.readouterr().out
    other = random_pipeline(FOUR_LEVELS)
    other.load_lora_weights(str(tmp_path), weight_name="new.safetensors")
    torch.testing.assert_close(answer(other, 32), answer(pipe, 32), rtol=1e-4, atol=1e-5)


def saved(change):
    """A file that is saved again with changed weights."""
    return lambda state, file: save_file(change(state), file)


SPOILED = {
    "is cut off or damaged": lambda state, file: file.write_bytes(file.read_bytes()[:-100]),
    "is a pickle": lambda state, file: file.write_bytes(pickle.dumps({"a": 1})),
    r"for another architecture: expected a UNet with .* and this one has \[": saved(
        lambda state: {k: torch.cat([v, v], -1 if "lora.down" in k else 0) for k, v in state.items()}
    ),
    "for another architecture: .* has no such module": saved(
        lambda state: {k.replace("unet.down", "unet.far.down"): v for k, v in state.items()}
    ),
    "is incomplete: of .* the down weights are missing": saved(lambda state: dict(sorted(state.items())[1:])),
    "not finite": saved(lambda state: state | {min(state): state[min(state)] * torch.nan}),
    "changes nothing": saved(lambda state: {k: v * ("lora.down" in k) for k, v in state.items()}),
    "trains the text encoder too": saved(lambda state: state | {"text_encoder.q_proj.lora.up.weight": torch.ones(1)}),
    "no LoRA that can be read": saved(lambda _: {"conv_in.weight": torch.ones(1, 1)}),
}
"""What spoils a file, by the message that says so."""


@pytest.mark.parametrize("message", SPOILED)
def test_what_cannot_be_is_refused_and_nothing_changes(pipe, lora, message, tmp_path):
    before, modules = pipeline_state(pipe), [type(module) for module in pipe.unet.modules()]
    file = written(lora, "lora.down", tmp_path)
    SPOILED[message](load_file(file), file)
    with pytest.raises(ValueError, match=message):
        sn.import_lora(pipe, file)
    assert pipeline_state(pipe) == before and not getattr(pipe.unet, "peft_config", {})
    assert [type(module) for module in pipe.unet.modules()] == modules


def test_a_second_one_is_refused_and_the_first_keeps_working(pipe, lora):
    sn.import_lora(pipe, lora)
    before = pipeline_state(pipe)
    with pytest.raises(ValueError, match="has a smooth LoRA already"):
        sn.import_lora(pipe, lora)
    assert pipeline_state(pipe) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True}, {"lora_bias": True}, {"bias": "all"}, {"modules_to_save": ["conv_out"]},
        {"init_lora_weights": "pissa"}, {"peft_type": "LOHA"}, {"layer_replication": [[0, 1]]}, {"unheard_of": True},
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["beside", "header"])
def test_other_kinds_of_peft_are_refused(pipe, lora, settings, where, tmp_path):
    file = written(lora, "peft", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text()) | settings
    if where == "header":
        header = json.dumps({f"unet.{name}": value for name, value in config.items()})
        save_file(load_file(file), file, {"lora_adapter_metadata": header})
    else:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"of another kind.*{next(iter(settings))}"):
        sn.import_lora(pipe, tmp_path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_unet_X.dora_scale", "DoRA"), ("unet.X.lora_magnitude_vector", "DoRA"), ("lora_unet_X.hada_w1_a", "LoHa"),
        ("lora_unet_X.lokr_w1", "LoKr"), ("lora_unet_X.lora_mid.weight", "Tucker"), ("lora_unet_X.oft_blocks", "OFT"),
        ("lora_unet_X.diff", "whole weights"), ("unet.X.lora_B.bias", "biases"),
        ("unet.conv_out.lora_A.other.weight", "more than one LoRA"),
    ],
)  # fmt: skip
def test_other_kinds_of_adapters_are_refused_by_name(pipe, key, message, tmp_path):
    state = {f"unet.conv_out.lora_{half}.default.weight": torch.ones(1, 1) for half in "AB"}
    save_file(state | {key: torch.ones(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=message):
        sn.import_lora(pipe, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"r": 4, "lora_alpha": 1}), "says rank 4 for"),
        ("{", r"settings of .* cannot be read"),
        (None, r"lacks adapter_config\.json"),
    ],
)
def test_a_scale_that_a_file_contradicts_or_leaves_open_is_refused(pipe, lora, text, message, tmp_path):
    file, settings = written(lora, "peft", tmp_path), tmp_path / "adapter_config.json"
    settings.write_text(text) if text else settings.unlink()
    with pytest.raises(ValueError, match=message):
        sn.import_lora(pipe, file)


def test_settings_of_peft_beside_another_file_are_not_its_own(pipe, lora, tmp_path):
    written(lora, "peft", tmp_path)
    sn.import_lora(pipe, written(lora, "lora.down", tmp_path))
    assert same(sn.lora_of(pipe), plain(lora))


def test_a_missing_alpha_is_the_rank_as_in_kohyas_programs(pipe, lora, tmp_path):
    state = load_file(written(lora, "kohya", tmp_path))
    gone = [key for key in state if "to_q" in key and "alpha" in key]
    save_file({k: v for k, v in state.items() if k not in gone}, tmp_path / "k.safetensors")
    found = sn.import_lora(pipe, tmp_path / "k.safetensors")
    for name, pair in found.pairs.items():
        assert pair.alpha == (pair.rank if "to_q" in name else lora.pairs[name].alpha)


def test_a_place_without_a_lora_says_what_is_there(pipe, tmp_path):
    with pytest.raises(FileNotFoundError, match="no LoRA at"):
        sn.import_lora(pipe, tmp_path / "none.safetensors")
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"expected one LoRA in .*found a\.txt"):
        sn.import_lora(pipe, tmp_path)


def test_a_hub_id_is_downloaded_without_pickles(pipe, lora, tmp_path, monkeypatch):
    asked = {}

    def download(repository, **options):
        asked.update(options, repository=repository)
        written(lora, "lora.down", tmp_path)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    sn.import_lora(pipe, "someone/smooth-lora")
    assert asked["repository"] == "someone/smooth-lora" and not any("bin" in p for p in asked["allow_patterns"])


def test_other_formats_and_names_are_refused(lora, tmp_path):
    with pytest.raises(ValueError, match="ends in"):
        export_lora(lora, tmp_path / "lora.bin")
    with pytest.raises((ValueError, TypeError), match=r"kohya|form"):
        export_lora(lora, tmp_path / "lora.safetensors", "onnx")
    assert not list(tmp_path.iterdir())
