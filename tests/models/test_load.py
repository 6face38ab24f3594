"""Pipelines from folders: what they have and say, and what is wrong with folders that are broken or of other kinds."""

import inspect
import json
import pickle
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

from smoothnb import UnknownWordsWarning, load_pipeline
from smoothnb.models import load, sources

UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
WORDS = {"words": ["a", "red", "house", "at", "night"], "topics": {"time": ["night"], "thing": ["house"]}}


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A private copy of the model's folder."""
    return shutil.copytree(tiny_folder, tmp_path / "copy")


def renamed(folder, **changes) -> None:
    """Changes what a folder says about its pipeline."""
    index = json.loads((folder / "model_index.json").read_text()) | changes
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture
def talking(folder):
    (folder / "vocabulary.json").write_text(json.dumps(WORDS))
    return load_pipeline(folder)


def test_a_folder_is_loaded_in_float32_with_quiet_ddim(tiny_folder):
    pipe = load_pipeline(str(tiny_folder), device="cpu")
    assert {p.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()} == {torch.float32}
    assert pipe.device.type == "cpu"
    assert isinstance(pipe.scheduler, DDIMScheduler)
    settings = dict(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1,
        set_alpha_to_one=False, clip_sample=False, prediction_type="epsilon",
    )  # fmt: skip
    assert {name: pipe.scheduler.config[name] for name in settings} == settings
    assert pipe.progress_bar(range(1)).disable
    assert load_pipeline(tiny_folder, dtype=torch.bfloat16).unet.dtype == torch.bfloat16


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_default_device_is_the_fastest(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert load.best_device().type == best


def test_another_scheduler_becomes_ddim_with_the_same_noise(folder):
    pndm = PNDMScheduler(beta_start=0.001, beta_end=0.013, beta_schedule="scaled_linear", skip_prk_steps=True)
    pndm.save_pretrained(folder / "scheduler")
    renamed(folder, scheduler=["diffusers", "PNDMScheduler"])
    with warnings.catch_warnings():
        # diffusers asks for steps_offset=1; models with another one exist, and must load.
        warnings.simplefilter("ignore", FutureWarning)
        scheduler = load_pipeline(folder).scheduler
    assert isinstance(scheduler, DDIMScheduler)
    assert not scheduler.config.clip_sample
    assert torch.equal(scheduler.alphas_cumprod, pndm.alphas_cumprod)


def test_packaged_models_load_by_name(tiny_folder, monkeypatch):
    monkeypatch.setattr(sources, "data_folder", lambda: tiny_folder.parent)
    assert sources.packaged_models() == ["tiny"]
    assert load_pipeline("tiny").unet.config.sample_size == 8


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("postcrad", ValueError, 'unknown model "postcrad": expected a model that comes with smoothnb'),
        ("./no-such-folder", FileNotFoundError, "there is no folder or file no-such-folder"),
        ("/no/such/folder", FileNotFoundError, "there is no folder or file /no/such/folder"),
        ("models/a.safetensors", FileNotFoundError, "there is no folder or file models"),
        ("", ValueError, "is not a diffusers pipeline"),
    ],
)
def test_wrong_names_say_what_is_expected(name, error, message):
    with pytest.raises(error, match=message):
        load_pipeline(name)


def test_a_folder_without_a_pipeline_says_what_is_in_it(tmp_path):
    (tmp_path / "picture.png").touch()
    with pytest.raises(ValueError, match=r"expected a model_index\.json in it, found picture\.png"):
        load_pipeline(tmp_path)


def test_other_kinds_of_pipelines_are_refused(folder):
    renamed(folder, _class_name="StableDiffusionXLPipeline", text_encoder_2=["transformers", "CLIPTextModel"])
    with pytest.raises(ValueError, match="holds a StableDiffusionXLPipeline"):
        load_pipeline(folder)


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def pickled(file, name):
    file.unlink()
    torch.save({"weight": Trap()}, file.with_name(name))


def without_a_weight(file):
    tensors = load_file(file)
    tensors.pop("conv_in.weight")
    save_file(tensors, file, {"format": "pt"})


def narrowed(file):
    file.write_text(file.read_text().replace('"cross_attention_dim": 16', '"cross_attention_dim": 24'))


DAMAGES = {
    "cut UNet": (UNET, cut, ValueError, "unet.* is cut off or damaged"),
    "cut text encoder": (TEXT, cut, ValueError, "text_encoder.* is cut off or damaged"),
    "pickle of that name": (TEXT, lambda f: f.write_bytes(pickle.dumps(Trap())), ValueError, "is a pickle"),
    "pickled UNet": (UNET, lambda f: pickled(f, "diffusion_pytorch_model.bin"), OSError, "no file named .*safetensors"),
    "pickled text encoder": (TEXT, lambda f: pickled(f, "pytorch_model.bin"), OSError, "no file named .*safetensors"),
    "a weight is missing": (UNET, without_a_weight, ValueError, r"lack conv_in\.weight"),
    "another width": ("unet/config.json", narrowed, ValueError, "do not belong together"),
    "no configuration": ("vae/config.json", lambda f: f.unlink(), OSError, r"no file named config\.json"),
    "damaged configuration": ("unet/config.json", lambda f: f.write_text("{"), OSError, "not a valid JSON"),
    "damaged index": ("model_index.json", lambda f: f.write_text("[]"), ValueError, "pipeline of no known class"),
    "no tokenizer": ("tokenizer/tokenizer.json", lambda f: f.unlink(), FileNotFoundError, "tokenizer/tokenizer.json"),
    "damaged tokenizer": ("tokenizer/tokenizer.json", lambda f: f.write_text("{"), ValueError, "incomplete or damaged"),
    "damaged vocabulary": ("vocabulary.json", lambda f: f.write_text("{"), ValueError, "is damaged: expected a JSON"),
    "other vocabulary": ("vocabulary.json", lambda f: f.write_text("{}"), ValueError, "expected words and topics"),
}


@pytest.mark.filterwarnings("ignore")  # of libraries, before the error
@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_wrong_with_a_folder_is_named_and_nothing_is_unpickled(folder, name):
    place, damage, error, message = DAMAGES[name]
    damage(folder / place)
    with pytest.raises(error, match=message) as said:
        load_pipeline(folder, "cpu")
    assert str(folder) in str(said.value)


def test_without_a_network_folders_load_in_silence_and_the_hub_says_what_to_do(tiny_folder):
    # In a process of its own: libraries warn when they are first imported, and only then does the hub's client read
    # that it is offline.
    code = f"""
import sys
import smoothnb as sn
pipe = sn.load_pipeline({str(tiny_folder)!r})
sn.generate(pipe, "a pine", num_inference_steps=2, progress=False)
print("drawn", file=sys.stderr)
sn.load_pipeline("nobody/no-such-model")
"""
    env = {"HF_HUB_OFFLINE": "1", "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)
    assert run.stderr.startswith("drawn\n")
    assert 'OSError: cannot load "nobody/no-such-model"' in run.stderr
    assert "Check the name and the network" in run.stderr


def test_known_words_and_embeddings_draw_no_warning(talking):
    for prompt in ("a red house at night", "A RED house, at night!!", "", ["a house", "red"]):
        assert torch.isfinite(talking.encode_prompt(prompt, "cpu", 1, True)[0]).all()
    embeds = torch.zeros(1, 32, 16)
    assert torch.equal(talking.encode_prompt(None, "cpu", 1, False, prompt_embeds=embeds)[0], embeds)


def test_unknown_words_are_named_once_with_what_the_model_knows(talking):
    with pytest.warns(UnknownWordsWarning) as record:
        talking(["a Dragon's house", "a red dragon"], num_inference_steps=1, negative_prompt=["fog", "night"])
    assert len(record) == 1
    assert record[0].filename == __file__, "the line is not the reader's own"
    message = str(record[0].message)
    assert '"Dragon\'s", "dragon", "fog"' in message
    assert "time: night; thing: house" in message


def test_warning_changes_neither_embeddings_nor_signature(talking, tiny_folder):
    silent = load_pipeline(tiny_folder)
    with pytest.warns(UnknownWordsWarning, match="zebra"):
        warned, _ = talking.encode_prompt("a zebra", "cpu", 1, False)
    assert torch.equal(warned, silent.encode_prompt("a zebra", "cpu", 1, False)[0])
    assert inspect.signature(talking.encode_prompt) == inspect.signature(silent.encode_prompt)
