"""The trainer: parameters, optimizer steps, and checkpoints."""

import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from smoothnb.figures import strip
from smoothnb.images import save_picture
from smoothnb.latents import encode_pixels, picture_size, seeded_noise, slerp
from smoothnb.models.load import load_pipeline
from smoothnb.models.lora import add_lora
from smoothnb.sampling import generate
from smoothnb.schedule import Schedule
from smoothnb.training.checkpoints import latest_checkpoint, load_latest, save_checkpoint
from smoothnb.training.config import TrainConfig
from smoothnb.training.datasets import open_data
from smoothnb.training.losses import base_loss, drop_prompts, offset_noise
from smoothnb.training.regularizer import POINTS, RunningConstant, objective_parts, unit_directions

log = logging.getLogger(__name__)

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MAY_CHANGE = {
    "output_dir", "steps", "checkpoint_every", "keep_checkpoints", "strip_every", "strip_prompt", "tracker",
    "gradient_checkpointing",
}  # fmt: skip
"""Settings that may differ when a run is resumed."""


@dataclass
class Progress:
    """Progress of a training run after a step.

    Attributes:
        step: Number of finished steps.
        loss: L_base, mean over the batch.
        regularizer: L_reg, mean over the batch; None for steps without it.
        a: The running constant.
        spread: How far the lengths √(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖ of the batch lie from a, as a share of it: √L_reg / a.
    """

    step: int
    loss: float
    regularizer: float | None = None
    a: float | None = None
    spread: float | None = None


class Trainer:
    """A training run on one process.

    Each step draws its pictures, captions, noise and timesteps from a generator seeded by (seed, step, process), so a
    resumed run is bit for bit the same as an uninterrupted one.
    """

    def __init__(self, config: TrainConfig):
        from accelerate import Accelerator
        from diffusers.optimization import get_scheduler

        self.config = config
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision, log_with=config.tracker,
            project_dir=config.output_dir if config.tracker else None,
        )  # fmt: skip
        # accelerate silently ignores a tracker whose package is missing.
        if config.tracker and not self.accelerator.log_with:
            raise ModuleNotFoundError(f"the tracker {config.tracker} is not installed: pip install {config.tracker}")
        device, dtype = self.accelerator.device, DTYPES[config.mixed_precision]
        torch.manual_seed(config.seed)
        self.pipe = load_pipeline(config.model, device, dtype)
        for part in (self.pipe.vae, self.pipe.text_encoder, self.pipe.unet):
            part.requires_grad_(False)
        self.unet = self.pipe.unet
        if config.rank:
            add_lora(self.unet, config.rank)
        else:
            self.unet.float().requires_grad_(True)
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.weights = {name: p for name, p in self.unet.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(self.weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.optimizer = self.accelerator.prepare(optimizer)
        name = {"constant": "constant_with_warmup"}.get(config.learning_rate_schedule, config.learning_rate_schedule)
        self.scheduler = get_scheduler(
            name, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.steps
        )
        self.schedule = Schedule.of(self.pipe.scheduler)
        own = {"ranges": 20, "relative": True} if config.regularizer == "per_timestep" else {}
        self.a = RunningConstant(reduce=lambda mean: self.accelerator.reduce(mean, "mean"), **own)
        self.data = open_data(config.data, *picture_size(self.pipe, config.height, config.width), config.seed)
        self.points = POINTS[dtype]
        self.empty = self.embed([""])
        self.step = 0
        self.restore()

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> Tensor:
        return self.pipe.encode_prompt(prompts, self.accelerator.device, 1, False)[0]

    @torch.no_grad()
    def batch(self, generator: torch.Generator, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, embeddings, noise and timesteps of a batch."""
        config, device = self.config, self.accelerator.device
        pixels, captions = self.data.take(range(number, number + config.batch_size))
        x0 = encode_pixels(self.pipe, pixels)
        embeds = drop_prompts(self.embed(captions), self.empty, config.drop_prompt, generator)
        noise = offset_noise(tuple(x0.shape), config.noise_offset, generator).to(device)
        timesteps = torch.randint(len(self.schedule), (len(x0),), generator=generator).to(device)
        return x0, embeds, noise, timesteps

    def advance(self) -> Progress:
        """Runs one optimizer step.

        Raises:
            FloatingPointError: If the loss is not finite; the weights are then unchanged.
        """
        config, accelerator = self.config, self.accelerator
        regularized = config.regularizer_weight > 0 and self.step % config.regularize_every == 0
        weight = config.regularizer_weight * config.regularize_every
        bases, regularizers = [], []
        self.unet.train()
        for micro in range(config.gradient_accumulation_steps):
            row = (self.step * config.gradient_accumulation_steps + micro) * accelerator.num_processes
            row += accelerator.process_index
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + row)
            x0, embeds, noise, timesteps = self.batch(generator, row * config.batch_size)

            def predict(x_t: Tensor, t: Tensor, embeds: Tensor = embeds) -> Tensor:
                with accelerator.autocast():
                    return self.unet(x_t, t, encoder_hidden_states=embeds).sample

            problem = predict, self.schedule, x0, noise, timesteps
            if regularized:
                delta = unit_directions(tuple(x0.shape), generator).to(x0.device)
                parts = objective_parts(*problem, delta, self.a, config.min_snr_gamma, self.points)
            else:
                parts = iter([(base_loss(*problem, config.min_snr_gamma), torch.zeros(len(x0), device=x0.device))])
            for part in parts:
                base, regularizer = (x.mean() / config.gradient_accumulation_steps for x in part)
                accelerator.backward(base + weight * regularizer)
                bases.append(base.detach())
                regularizers.append(regularizer.detach())
        base, regularizer = accelerator.reduce(torch.stack([sum(bases), sum(regularizers)]), "mean").tolist()
        self._update(base + regularizer)
        if not regularized:
            return Progress(self.step, base)
        spread = regularizer**0.5 / (1 if self.a.relative else self.a.value)
        return Progress(self.step, base, regularizer, self.a.value, spread)

    def _update(self, loss: float) -> None:
        if not math.isfinite(loss):
            last = latest_checkpoint(self.config.output_dir)
            raise FloatingPointError(
                f"the loss is {loss} at step {self.step}, learning rate {self.scheduler.get_last_lr()[0]:g}. "
                f"The last good checkpoint is {last or 'none, as none was written yet'}: resume from there with a "
                "lower learning rate or a smaller regularizer_weight"
            )
        # DistributedDataParallel expects one backward pass per step; reducing a LoRA's small gradients here is cheap.
        if self.accelerator.num_processes > 1:
            for p in self.weights.values():
                p.grad = self.accelerator.reduce(p.grad, "mean")
        self.accelerator.clip_grad_norm_(self.weights.values(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.step += 1

    def save(self) -> Path | None:
        """Writes a checkpoint on the main process."""
        from accelerate.utils import send_to_device

        if not self.accelerator.is_main_process:
            return None
        state = {
            "step": self.step,
            "weights": {name: p.detach().cpu() for name, p in self.weights.items()},
            "optimizer": send_to_device(self.optimizer.state_dict(), "cpu"),
            "scheduler": self.scheduler.state_dict(),
            "a": self.a.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "config": json.dumps(asdict(self.config), default=str),
        }
        return save_checkpoint(state, self.config.output_dir, self.step, self.config.keep_checkpoints)

    def restore(self) -> None:
        """Resumes from the newest readable checkpoint, if there is one. Damaged ones are skipped with a warning.

        Raises:
            ValueError: If it was written with other settings, or no checkpoint is readable.
        """
        found = load_latest(self.config.output_dir)
        if found is None:
            return
        path, state = found
        if missing := {"config", "weights", "optimizer", "scheduler", "a", "scaler", "step"} - state.keys():
            raise ValueError(f"{path} is not a training checkpoint: it lacks {', '.join(sorted(missing))}. Remove it")
        then, now = json.loads(state["config"]), json.loads(json.dumps(asdict(self.config), default=str))
        differing = [name for name in now if name not in MAY_CHANGE and then.get(name) != now[name]]
        if differing:
            changes = ", ".join(f"{name} was {then.get(name)!r} and is {now[name]!r}" for name in differing)
            raise ValueError(f"{path} belongs to another run: {changes}. Use another output_dir, or remove it")
        for name, p in self.weights.items():
            p.data.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.a.load_state_dict(state["a"])
        if state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        log.info("Resuming from %s", path)

    def draw_strip(self) -> None:
        """Draws an interpolation, to see how smooth the model has become."""
        self.unet.eval()
        a, b = seeded_noise(self.pipe, [0, 1])
        etas = [i / 10 for i in range(11)]
        frames = generate(self.pipe, self.config.strip_prompt, latents=slerp(a, b, etas), progress=False)
        save_picture(
            strip(frames, [f"{eta:.1f}" for eta in etas]), self.config.output_dir / f"strip-{self.step:06d}.png"
        )
