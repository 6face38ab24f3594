"""LoRA files: every form is read, what is read takes effect, and what cannot be is refused."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import smoothnb as sn
from smoothnb.cli import main
from smoothnb.models.lora import TARGETS
from smoothnb.models.lora_files import Lora, Pair, export_lora, read_lora

FORMS = ["lora.down", "lora_A", "bare", "attn_procs", "peft", "kohya"]


@pytest.fixture
def pipe(tiny_folder):
    return sn.load_pipeline(tiny_folder, device="cpu")


@pytest.fixture
def lora(tiny_pipe):
    """Random, with two ranks and an alpha of its own here and there."""
    generator = torch.Generator().manual_seed(0)
    pairs = {}
    for name, module in tiny_pipe.unet.named_modules():
        if any(name.endswith(f".{target}") for target in TARGETS):
            out, width = module.weight.shape
            rank = 3 if "attn2" in name else 2
            down, up = (0.3 * torch.randn(s, generator=generator) for s in ((rank, width), (out, rank)))
            pairs[name] = Pair(down, up, 5.0 if "to_k" in name else 1.5)
    return Lora(pairs)


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
def answer(pipe):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    return pipe.unet(noise, 300, torch.randn(2, 5, 16, generator=generator)).sample


def merged(pipe, lora: Lora):
    """The answer of a UNet into whose weights the LoRA is added by hand."""
    for name, pair in lora.pairs.items():
        weight = pipe.unet.get_submodule(name).weight
        weight.data += pair.alpha / pair.rank * pair.up @ pair.down
    return answer(pipe)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("whole", [False, True], ids=["file", "folder"])
def test_every_form_is_read_and_works_as_if_it_were_merged(pipe, tiny_folder, lora, form, whole, tmp_path):
    expected = lora if form in ("kohya", "peft") else plain(lora)
    file = written(lora, form, tmp_path)
    found = sn.import_lora(pipe, tmp_path if whole else file)
    assert same(found, expected) and same(sn.lora_of(pipe), expected)
    assert found.form == {"lora.down": "diffusers", "lora_A": "diffusers", "bare": "diffusers"}.get(form, form)
    by_hand = merged(sn.load_pipeline(tiny_folder, device="cpu"), expected)
    torch.testing.assert_close(answer(pipe), by_hand, rtol=1e-4, atol=1e-4)
    sn.set_smoothness(pipe, 0)
    assert torch.equal(answer(pipe), answer(sn.load_pipeline(tiny_folder, device="cpu")))
    assert "rank 2 and 3" in str(found)


@pytest.mark.parametrize("form", ["diffusers", "kohya"])
def test_diffusers_reads_what_is_exported(pipe, tiny_folder, lora, form, tmp_path):
    if form == "kohya":
        # diffusers 0.42 passes over an alpha in kohya's form that differs from the other modules'.
        lora = Lora({name: Pair(p.down, p.up, 1.5) for name, p in lora.pairs.items()})
    sn.import_lora(pipe, lora)
    file = sn.export_lora(lora, tmp_path / "new" / "lora.safetensors", form)
    other = sn.load_pipeline(tiny_folder, device="cpu")
    other.load_lora_weights(str(file.parent), weight_name=file.name)
    assert torch.equal(answer(other), answer(pipe))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trips_are_exact(tiny_pipe, lora, dtype, tmp_path):
    lora = Lora(
        {n: Pair(p.down.to(dtype), p.up.to(dtype), p.alpha) for n, p in lora.pairs.items()}, "kohya", {"a": "b"}
    )
    modules = [name for name, _ in tiny_pipe.unet.named_modules()]
    first = read_lora(export_lora(lora, tmp_path / "1.safetensors", "kohya"), modules)
    second = read_lora(export_lora(first, tmp_path / "2.safetensors", "diffusers"))
    third = read_lora(export_lora(second, tmp_path / "3.safetensors", "kohya"), modules)
    assert same(lora, first) and same(lora, second) and same(lora, third)
    assert second.form == "diffusers" and third.form == "kohya" and second.metadata["a"] == "b"
    assert third.metadata == first.metadata


def test_kohya_says_its_rank_and_alpha_in_the_header(lora, tmp_path):
    with safe_open(export_lora(lora, tmp_path / "k.safetensors", "kohya"), "pt") as file:
        assert file.metadata()["ss_network_dim"] == "2" and file.metadata()["ss_network_module"] == "networks.lora"
    assert all(key.startswith("lora_unet_") for key in load_file(tmp_path / "k.safetensors"))


def test_the_command_line_exports_there_and_back(lora, tiny_folder, tmp_path, capsys):
    file = written(lora, "kohya", tmp_path)
    with pytest.raises(ValueError, match="give a --model that it fits"):
        main(["export", "--lora", str(file), "--output", str(tmp_path / "d.safetensors")])
    main(["export", "--lora", str(file), "--output", str(tmp_path / "d.safetensors"), "--model", str(tiny_folder)])
    assert "alpha 1.5 and 5, read as kohya; wrote" in capsys.readouterr().out
    main(["export", "--lora", str(tmp_path / "d.safetensors"), "--output", str(tmp_path / "k.safetensors"),
          "--format", "kohya"])  # fmt: skip
    ours, theirs = load_file(tmp_path / "k.safetensors"), load_file(file)
    assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


def spoiled(lora: Lora, how: str, folder):
    """A file that must be refused."""
    file = written(lora, "lora.down", folder)
    state = load_file(file)
    first = sorted(state)[0]
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "header cut":
        file.write_bytes(file.read_bytes()[:20])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "pickle":
        file = folder / "lora.bin"
        file.write_bytes(pickle.dumps({"a": 1}))
    elif how == "torch archive":
        torch.save({"a": torch.ones(1)}, file)
    elif how == "other shapes":
        save_file(
            {key: torch.cat([value, value], -1 if "lora.down" in key else 0) for key, value in state.items()}, file
        )
    elif how == "other modules":
        save_file({key.replace("unet.down", "unet.far.down"): value for key, value in state.items()}, file)
    elif how == "a half":
        save_file({key: value for key, value in state.items() if key != first}, file)
    elif how == "nan":
        save_file(state | {first: state[first] * float("nan")}, file)
    elif how == "untrained":
        save_file({key: value * ("lora.down" in key) for key, value in state.items()}, file)
    elif how == "text encoder":
        save_file(state | {"text_encoder.text_model.q_proj.lora.down.weight": torch.ones(1, 1)}, file)
    elif how == "a model":
        save_file({"conv_in.weight": torch.ones(1, 1)}, file)
    return file


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "cut off or damaged"),
        ("header cut", "cut off or damaged"),
        ("empty", "cut off or damaged"),
        ("pickle", "is a pickle"),
        ("torch archive", "is a pickle"),
        ("other shapes", "for another architecture: expected a UNet with .* and this one has"),
        ("other modules", "for another architecture: .* has no such module"),
        ("a half", "is incomplete: of .* the down weights are missing"),
        ("nan", "not finite"),
        ("untrained", "changes nothing"),
        ("text encoder", "trains the text encoder too"),
        ("a model", "no LoRA that can be read"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(pipe, lora, how, message, tmp_path):
    before, modules = answer(pipe), [type(module) for module in pipe.unet.modules()]
    with pytest.raises(ValueError, match=message):
        sn.import_lora(pipe, spoiled(lora, how, tmp_path))
    assert torch.equal(answer(pipe), before)
    assert not getattr(pipe.unet, "peft_config", {})
    assert [type(module) for module in pipe.unet.modules()] == modules
    # And the right one still fits.
    sn.import_lora(pipe, lora)
    assert not torch.equal(answer(pipe), before)


def test_other_kinds_of_peft_are_refused(pipe, lora, tmp_path):
    written(lora, "peft", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True}))
    with pytest.raises(ValueError, match="of another kind"):
        sn.import_lora(pipe, tmp_path)


def test_a_second_one_is_refused_and_the_first_keeps_working(pipe, lora):
    sn.import_lora(pipe, lora)
    before = answer(pipe)
    with pytest.raises(ValueError, match="has a smooth LoRA already"):
        sn.import_lora(pipe, lora)
    assert torch.equal(answer(pipe), before)


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
