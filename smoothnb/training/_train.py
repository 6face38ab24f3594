"""The training loop of a smooth LoRA: Eq. 2 with the step-wise variation regularizer, on one or several processes."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from smoothnb._utils.console import progress_bar
from smoothnb._utils.memory import oom_hint
from smoothnb.models.lora import lora_of
from smoothnb.models.lora_files import WEIGHTS, export_lora
from smoothnb.training.config import TrainConfig
from smoothnb.training.trainer import Progress, Trainer


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defers Ctrl-C to the end of a step; a second Ctrl-C acts at once. Yields a function that tells whether it was
    pressed."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def press(signum, frame) -> None:
        signal.signal(signal.SIGINT, before)
        pressed.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@oom_hint(
    "training",
    "give a smaller batch_size and as many times more gradient_accumulation_steps, gradient_checkpointing=True, or "
    'mixed_precision="bf16"',
)
def train(config: TrainConfig, on_step: Callable[[Progress], None] | None = None) -> Path:
    """Trains a smooth LoRA and saves it in diffusers' format.

    `accelerate launch -m smoothnb train …` distributes the work over processes. A run that was stopped or killed
    resumes from its last checkpoint when it is called again.

    Args:
        config: The settings.
        on_step: Called after each step on the main process, for example to update a live plot.

    Returns:
        The file `pytorch_lora_weights.safetensors` in the output folder, in float16 and with the settings in its
        metadata; for rank 0 the folder of the trained UNet.

    Raises:
        FloatingPointError: If the loss is not finite. The message names the step and the last good checkpoint.
        KeyboardInterrupt: After Ctrl-C, once the step is done and its checkpoint written.
    """
    trainer = Trainer(config)
    main = trainer.accelerator.is_main_process
    config.output_dir.mkdir(parents=True, exist_ok=True)
    if config.tracker:
        trainer.accelerator.init_trackers("smoothnb", {k: str(v) for k, v in asdict(config).items()})
    with progress_bar(config.steps, "training", main) as bar, deferred_interrupt() as interrupted:
        bar.update(trainer.step)
        while trainer.step < config.steps:
            progress = trainer.advance()
            shown = {k: v for k, v in asdict(progress).items() if k != "step" and v is not None}
            trainer.accelerator.log(shown, step=trainer.step)
            bar.set_postfix({k: f"{v:.3g}" for k, v in shown.items()})
            bar.update()
            if main and on_step is not None:
                on_step(progress)
            stop = interrupted()
            if trainer.step % config.checkpoint_every == 0 or trainer.step == config.steps or stop:
                trainer.save()
            if main and config.strip_every and trainer.step % config.strip_every == 0:
                trainer.draw_strip()
            if stop:
                raise KeyboardInterrupt(
                    f"stopped after step {trainer.step} of {config.steps}; the same command resumes from there"
                )
    trainer.accelerator.end_training()
    # output_dir is a local path; it is kept out of published metadata.
    settings = json.dumps({k: v for k, v in asdict(config).items() if k != "output_dir"}, default=str)
    if config.rank == 0:
        trainer.unet.save_pretrained(config.output_dir / "unet")
        return config.output_dir / "unet"
    return export_lora(
        lora_of(trainer.pipe, torch.float16), config.output_dir / WEIGHTS, metadata={"smoothnb": settings}
    )
