"""Stable Diffusion's architecture: its size, and every public function on a narrow one, at any size and precision."""

import pytest
import sd15
import torch
from architectures import SD15, Architecture, random_pipeline

import smoothnb as sn

NARROW = Architecture(
    sample_size=16, channels=(32, 32, 64, 64), heads=4, groups=8, vae_channels=(16, 16, 32, 32), vae_groups=4,
    text_width=32, text_layers=2, text_heads=2, vocabulary=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def benchmark():
    """benchmarks/sd15.py, whose jobs call every public function that takes a pipeline."""
    return sd15


def test_it_is_as_large_as_stable_diffusion():
    pipe = random_pipeline(SD15, device="meta")
    sizes = [sum(p.numel() for p in part.parameters()) for part in (pipe.unet, pipe.vae, pipe.text_encoder)]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]


def test_weights_depend_on_the_seed_alone():
    a, b, c = (random_pipeline(NARROW, seed=seed).unet.conv_in.weight for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


JOBS = ("autoencoder", "generate", "interpolate", "ddim_invert", "null_text", "edit_text", "drag", "drag_diffusion",
        "point_map", "istd", "lora")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("size", [(128, 128), (128, 192), (192, 64)], ids=lambda size: "×".join(map(str, size)))
@pytest.mark.parametrize("job", JOBS)
def test_jobs_run_at_any_size(benchmark, job, size):
    found = benchmark.JOBS[job](random_pipeline(NARROW), size)
    height, width = size
    expected = {
        "autoencoder": (width, height), "generate": (width, height), "interpolate": 3,
        "ddim_invert": (1, 4, height // 8, width // 8), "null_text": (2, 1, 77, 32), "istd": (True, 1), "lora": 128,
        "point_map": (64, 64), "edit_text": ["switch", "attention", "sdedit"],
    }  # fmt: skip
    if job.startswith("drag"):
        assert found[0] == (width, height)
    else:
        assert found == expected[job]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("job", JOBS)
def test_jobs_run_in_half_precision(benchmark, job, dtype):
    assert benchmark.JOBS[job](random_pipeline(NARROW, dtype=dtype), (128, 128)) is not None


def test_every_job_is_among_them(benchmark):
    assert set(JOBS) == set(benchmark.JOBS)


def test_a_training_step_runs_at_any_size(benchmark, tmp_path):
    size = (128, 192)
    trainer = benchmark.trainer_for(tmp_path, random_pipeline(NARROW), size, "float32", gradient_checkpointing=True)
    assert benchmark.step(trainer, size) == "checkpoint-000001.pt"
    assert len(sn.train(trainer.config).read_bytes()) > 1000


def test_what_is_alive_is_counted(benchmark):
    weight = torch.ones(50, 50)
    with benchmark.LiveMemory() as live:
        weight.t().mul_(2)
        a = torch.ones(1000, dtype=torch.float16)  # 2 kB
        b = (a + a)[:10]  # 2 kB more, and its view none
        del a
        c = torch.zeros(1500)  # 6 kB, beside b's 2
        assert live.peak == 8000
        del b, c
        torch.zeros(1000)
        torch.zeros(9999, device="meta")
        assert live.peak == 8000


def test_half_precision_is_rounded_as_it_would_be(benchmark):
    x, w = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0)).half()
    with benchmark.LiveMemory():
        found = x @ w
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), x.float() @ w.float(), rtol=1e-3, atol=1e-2)
