"""Training: what it writes, and that neither kill, Ctrl-C nor NaN loses or spoils anything."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from smoothnb.models.load import load_pipeline
from smoothnb.models.lora import import_lora, set_smoothness
from smoothnb.models.lora_files import WEIGHTS
from smoothnb.sampling import generate
from smoothnb.training import TrainConfig, train
from smoothnb.training.checkpoints import checkpoints, latest_checkpoint, save_checkpoint
from smoothnb.training.trainer import Trainer


@pytest.fixture
def config(tiny_folder, tmp_path):
    return TrainConfig(
        model=str(tiny_folder), output_dir=tmp_path / "run", steps=4, batch_size=2, rank=2, learning_rate=1e-2,
        checkpoint_every=2,
    )  # fmt: skip


def command(config: TrainConfig) -> list[str]:
    options = dict(
        model=config.model, output_dir=config.output_dir, steps=config.steps, batch_size=config.batch_size,
        rank=config.rank, learning_rate=config.learning_rate, checkpoint_every=config.checkpoint_every,
    )  # fmt: skip
    return ["-m", "smoothnb", "train", *(w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v)))]


def test_a_killed_training_ends_as_one_that_was_never_stopped(config, tmp_path):
    whole = train(replace(config, steps=40, output_dir=tmp_path / "whole"))
    words = [sys.executable, *command(replace(config, steps=40))]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while latest_checkpoint(config.output_dir) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < int(latest_checkpoint(config.output_dir).stem.split("-")[1]) < 40
    assert not (config.output_dir / WEIGHTS).exists()
    resumed = train(replace(config, steps=40))
    a, b = load_file(whole), load_file(resumed)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_plain_diffusers_loads_the_lora_and_it_changes_the_picture(config, tiny_folder):
    file = train(config)
    with safe_open(file, "pt") as f:
        assert json.loads(f.metadata()["smoothnb"])["rank"] == 2
        assert str(config.output_dir) not in f.metadata()["smoothnb"]
    code = f"""
import sys, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({str(tiny_folder)!r}).to(torch.float32)
def draw():
    return pipe("a", num_inference_steps=2, output_type="pt", generator=torch.Generator().manual_seed(0)).images
before = draw()
# Offline, older versions of diffusers ask for the file's name.
pipe.load_lora_weights({str(file.parent)!r}, weight_name={file.name!r})
print((draw() - before).abs().max().item() > 1e-3, any(n.startswith("smoothnb") for n in sys.modules))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "True False", done.stderr


def test_smoothness_blends_from_the_base_model(config, tiny_folder):
    file = train(config)
    base, pipe = (load_pipeline(tiny_folder, device="cpu") for _ in range(2))
    import_lora(pipe, file)

    def draw(pipe):
        return generate(pipe, "a", num_inference_steps=2, progress=False)[0].tobytes()

    set_smoothness(pipe, 0)
    assert draw(pipe) == draw(base)
    set_smoothness(pipe, 1)
    assert draw(pipe) != draw(base)
    smooth = load_pipeline(tiny_folder, device="cpu", smooth=file.parent)
    assert draw(smooth) == draw(pipe)
    with pytest.raises(ValueError, match="has a smooth LoRA already"):
        import_lora(pipe, file)
    with pytest.raises(ValueError, match="at least 0"):
        set_smoothness(pipe, -1)
    with pytest.raises(ValueError, match="no smooth LoRA"):
        set_smoothness(base, 1)


def test_a_model_without_a_smooth_lora_says_how_to_train_one(tiny_folder):
    with pytest.raises(ValueError, match="smoothnb train --model"):
        load_pipeline(tiny_folder, device="cpu", smooth=True)


def test_processes_share_the_work_and_a(config, tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(f"""
import os
from pathlib import Path
from smoothnb.training import TrainConfig
from smoothnb.training.trainer import Trainer
folder = Path({str(config.output_dir)!r})
trainer = Trainer(TrainConfig(model={config.model!r}, output_dir=folder, batch_size=2, rank=2))
for _ in range(2):
    progress = trainer.advance()
weights = sum(p.double().sum().item() for p in trainer.weights.values())
Path({str(tmp_path)!r}, "rank" + os.environ["RANK"]).write_text(f"{{progress!r}} {{weights!r}}")
""")
    words = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank{i}").read_text() for i in range(2))
    assert first == second
    # One process with batches twice as large draws other noise: a differs, so the two have really shared.
    alone = Trainer(replace(config, output_dir=tmp_path / "alone"))
    assert repr(alone.advance().a) not in first


def test_nan_stops_with_step_rate_and_checkpoint(config, monkeypatch):
    trainer = Trainer(config)
    trainer.advance()
    trainer.save()
    weights = {name: p.clone() for name, p in trainer.weights.items()}
    trainer.data.take = lambda numbers: (torch.full((len(numbers), 3, 64, 64), torch.nan), ["a"] * len(numbers))
    with pytest.raises(FloatingPointError, match=r"nan at step 1, learning rate 0.01.*checkpoint-000001\.pt"):
        trainer.advance()
    assert all(torch.equal(p, weights[name]) for name, p in trainer.weights.items())


def test_ctrl_c_ends_the_step_saves_and_says_how_to_go_on(config):
    def press(progress):
        if progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 1 of 4"):
        train(config, on_step=press)
    assert latest_checkpoint(config.output_dir).name == "checkpoint-000001.pt"
    seen = []
    train(config, on_step=seen.append)
    assert [progress.step for progress in seen] == [2, 3, 4]


def test_another_training_s_checkpoint_is_refused(config):
    train(config)
    with pytest.raises(ValueError, match="rank was 2 and is 4"):
        train(replace(config, rank=4))


def test_checkpoints_are_limited_in_number_and_half_written_ones_do_not_count(tmp_path):
    for step in (5, 10, 15):
        save_checkpoint({"step": step}, tmp_path, step, keep=2)
    (tmp_path / "checkpoint-000020.partial").write_bytes(b"half")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000010.pt", "checkpoint-000015.pt"]


def test_lazy_steps_have_no_regularizer_and_accumulation_counts_once(config):
    seen = []
    train(replace(config, regularize_every=2, gradient_accumulation_steps=2), on_step=seen.append)
    assert [progress.regularizer is None for progress in seen] == [False, True, False, True]


@pytest.mark.filterwarnings("ignore")  # of tensorboard's own
def test_numbers_go_to_the_tracker_and_strips_to_the_folder(config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = []
    train(replace(config, steps=2, strip_every=2, tracker="tensorboard"), on_step=seen.append)
    (events,) = config.output_dir.rglob("events.out.tfevents*.0")
    board = EventAccumulator(str(events)).Reload()
    for name in ("loss", "regularizer", "a", "spread"):
        assert [e.value for e in board.Scalars(name)] == pytest.approx([getattr(p, name) for p in seen])
    with Image.open(config.output_dir / "strip-000002.png") as drawn:
        assert drawn.width > 11 * drawn.height / 2


@pytest.mark.filterwarnings("ignore:.*no supported trackers")  # accelerate's, before the error
def test_a_tracker_that_is_not_installed_is_named(config, monkeypatch):
    monkeypatch.setattr("accelerate.accelerator.filter_trackers", lambda *_: [])
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        Trainer(replace(config, tracker="tensorboard"))


def test_full_training_saves_a_unet(config):
    folder = train(replace(config, rank=0, steps=1))
    assert (folder / "diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.parametrize("bad", [{"steps": 0}, {"drop_prompt": 1.5}, {"learning_rate": 0}, {"regularizer_weight": -1}])
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrainConfig(**bad)
