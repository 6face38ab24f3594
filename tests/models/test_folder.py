"""Folders of pipelines that are incomplete, damaged or pickled: refused by name, never passed over, never unpickled."""

import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from smoothnb import load_pipeline

UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


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


DAMAGES = {
    "cut UNet": (UNET, cut, ValueError, "cut off or damaged"),
    "cut text encoder": (TEXT, cut, ValueError, "cut off or damaged"),
    "empty": (UNET, lambda f: f.write_bytes(b""), ValueError, "cut off or damaged"),
    "pickle of that name": (TEXT, lambda f: f.write_bytes(pickle.dumps(Trap())), ValueError, "is a pickle"),
    "pickled UNet": (UNET, lambda f: pickled(f, "diffusion_pytorch_model.bin"), ValueError, "is a pickle"),
    "pickled text encoder": (TEXT, lambda f: pickled(f, "pytorch_model.bin"), ValueError, "is a pickle"),
    "no UNet": (UNET, lambda f: f.unlink(), FileNotFoundError, "is incomplete"),
    "a weight is missing": (UNET, without_a_weight, ValueError, r"lack conv_in\.weight"),
    "no configuration": ("vae/config.json", lambda f: f.unlink(), FileNotFoundError, "is incomplete"),
    "damaged configuration": ("unet/config.json", lambda f: f.write_text("{"), ValueError, "config.json is damaged"),
    "no object": ("model_index.json", lambda f: f.write_text("[]"), ValueError, "expected a JSON object"),
    "no tokenizer": ("tokenizer/tokenizer.json", lambda f: f.unlink(), FileNotFoundError, "tokenizer/tokenizer.json"),
    "damaged tokenizer": ("tokenizer/tokenizer.json", lambda f: f.write_text("{"), ValueError, "is damaged"),
    "empty tokenizer": ("tokenizer/tokenizer.json", lambda f: f.write_text("{}"), ValueError, "cannot be loaded"),
    "no scheduler": ("scheduler/scheduler_config.json", lambda f: f.unlink(), FileNotFoundError, "is incomplete"),
    "damaged vocabulary": ("vocabulary.json", lambda f: f.write_text("[]"), ValueError, "is damaged"),
    "other vocabulary": ("vocabulary.json", lambda f: f.write_text("{}"), ValueError, "expected words and topics"),
    "another width": (
        "unet/config.json",
        lambda f: f.write_text(f.read_text().replace('"cross_attention_dim": 16', '"cross_attention_dim": 24')),
        ValueError, "do not belong together",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of libraries, before the error
@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_wrong_with_a_folder_is_named(tiny_folder, tmp_path, name):
    place, damage, error, message = DAMAGES[name]
    shutil.copytree(tiny_folder, tmp_path / "model")
    damage(tmp_path / "model" / place)
    with pytest.raises(error, match=message) as said:
        load_pipeline(tmp_path / "model", "cpu")
    assert str(tmp_path / "model") in str(said.value)
