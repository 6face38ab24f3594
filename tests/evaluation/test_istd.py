"""ISTD against its definition, written out; its file that grows; several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from smoothnb import ISTD, generate, istd, neighbour_distances, seeded_noise, slerp
from smoothnb._utils.files import data_folder

SETTINGS = dict(num_ratios=3, num_inference_steps=2, progress=False)
PROMPTS = ["a house", "a pine", "a red sailboat at night", "a balloon", "snow"]


@pytest.fixture(scope="module")
def measured(tiny_pipe) -> ISTD:
    return istd(tiny_pipe, PROMPTS, batch_size=6, **SETTINGS)


def test_it_is_the_mean_deviation_of_neighbours_distances(tiny_pipe):
    prompts = ["a house", "a pine"]
    # A walk at a time, as below: in another batch a pixel may be rounded to the level beside.
    result = istd(tiny_pipe, prompts, batch_size=3, **SETTINGS)
    by_hand = []
    for i, prompt in enumerate(prompts):
        path = slerp(*seeded_noise(tiny_pipe, [2 * i, 2 * i + 1]), [0, 0.5, 1])
        frames = generate(tiny_pipe, prompt, latents=path, num_inference_steps=2, progress=False)
        pixels = [np.asarray(frame) / 255 for frame in frames]
        by_hand.append([np.linalg.norm(b - a) for a, b in pairwise(pixels)])
    np.testing.assert_allclose(result.distances, by_hand, rtol=1e-4)
    assert result.value == pytest.approx(np.mean([np.std(row) for row in by_hand]), rel=1e-4)
    assert result.value > 0


def test_noises_depend_on_seed_and_prompt_number_alone(tiny_pipe, measured):
    first, other = (istd(tiny_pipe, ["a house"], seed=seed, **SETTINGS) for seed in (0, 1))
    np.testing.assert_allclose(measured.distances[:1], first.distances, rtol=1e-4)
    assert abs(other.value - first.value) > 1e-6


@pytest.mark.parametrize("batch_size", [1, 3, 7, 99])
def test_what_shares_a_batch_changes_no_more_than_rounding(tiny_pipe, measured, batch_size):
    found = istd(tiny_pipe, PROMPTS, batch_size=batch_size, **SETTINGS)
    # Another rounding of one value by 1/255 is all that a picture of 8 bits can show.
    np.testing.assert_allclose(found.distances, measured.distances, atol=2e-2)


def test_distances_grow_with_the_range_of_pixels(tiny_pipe, measured):
    wide = istd(tiny_pipe, PROMPTS, batch_size=6, pixel_range=(-1, 1), **SETTINGS)
    torch.testing.assert_close(wide.distances, 2 * measured.distances)
    sample = istd(tiny_pipe, PROMPTS, batch_size=6, correction=1, **SETTINGS)
    assert sample.value == pytest.approx(measured.value * 2**0.5)  # Of two distances: divided by 1 instead of 2.


def test_neighbours_of_known_distance():
    frames = [torch.full((3, 4, 4), value) for value in (0.0, 1.0, 0.0)]
    from smoothnb.images import to_pil

    assert neighbour_distances(to_pil(torch.stack(frames))).tolist() == pytest.approx([48**0.5] * 2)
    assert neighbour_distances(to_pil(torch.stack(frames)), (0, 255)).tolist() == pytest.approx([255 * 48**0.5] * 2)


def test_relative_form_and_cliff_are_blind_to_how_much_pictures_change():
    rows = torch.tensor([[1.0, 1.0, 4.0], [2.0, 2.0, 2.0]])
    result, half = (ISTD(scale * rows, ("a", "b")) for scale in (1.0, 0.5))
    assert half.value == pytest.approx(result.value / 2)
    assert half.mean_step == pytest.approx(1.0)
    assert half.relative == pytest.approx(result.relative)
    assert result.relative == pytest.approx((2**0.5 / 2 + 0) / 2)
    assert half.cliff == result.cliff == pytest.approx((4 / 6 + 1 / 3) / 2)
    assert ISTD(torch.zeros(1, 3), ("a",)).relative == 0


def test_the_interval_holds_the_value_and_narrows_with_more_prompts():
    generator = torch.Generator().manual_seed(0)
    few, many = (ISTD(torch.rand(n, 10, generator=generator), ("",) * n) for n in (10, 1000))
    for result in (few, many):
        low, high = result.interval
        assert low < result.value < high
        # Of a mean, the bootstrap gives what the central limit theorem promises.
        assert high - low == pytest.approx(
            2 * 1.96 * result.deviations.std().item() / len(result.prompts) ** 0.5, rel=0.2
        )
    assert few.interval[1] - few.interval[0] > 3 * (many.interval[1] - many.interval[0])


def test_some_of_the_prompts_are_a_result_too(measured):
    some = measured[1:3]
    assert len(measured) == 5 and len(some) == 2 and some.prompts == tuple(PROMPTS[1:3])
    assert some.value == pytest.approx(measured.deviations[1:3].mean().item())


def test_a_file_brings_the_same_numbers_back(measured, tmp_path):
    file = measured.save(tmp_path / "new" / "base.jsonl")
    again = ISTD.load(file)
    assert torch.equal(again.distances, measured.distances)
    assert (again.prompts, again.settings, again.model) == (measured.prompts, measured.settings, measured.model)
    assert again.value == measured.value and again.interval == measured.interval
    assert all(json.loads(line) for line in file.read_text().splitlines())
    assert "5 prompts" in repr(again) and measured.model in repr(again)
    with pytest.raises(ValueError, match="was 'elsewhere'"):
        measured.save(replace(measured, model="elsewhere").save(tmp_path / "other.jsonl"))


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.97, 0.999, 1.0])
def test_a_file_cut_anywhere_is_gone_on_with(tiny_pipe, measured, tmp_path, kept, monkeypatch):
    whole = measured.save(tmp_path / "whole.jsonl").read_bytes()
    file = tmp_path / "cut.jsonl"
    file.write_bytes(whole[: round(kept * len(whole))])
    drawn = []
    original = sys.modules["smoothnb.evaluation._istd"].generate
    monkeypatch.setattr(
        sys.modules["smoothnb.evaluation._istd"], "generate", lambda *a, **k: drawn.append(1) or original(*a, **k)
    )
    found = istd(tiny_pipe, PROMPTS, batch_size=6, results=file, **SETTINGS)
    assert torch.equal(found.distances, measured.distances)
    assert file.read_bytes() == whole
    assert len(drawn) == {0.0: 3, 0.001: 3, 0.97: 1, 0.999: 1, 1.0: 0}.get(kept, len(drawn))


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        (PROMPTS, {"num_inference_steps": 3}, "num_inference_steps was 2 and is 3"),
        (PROMPTS, {"seed": 4}, "seed was 0 and is 4"),
        (PROMPTS[:2], {}, "there were 5 prompts and are 2"),
        ([*PROMPTS[:3], "fog", "snow"], {}, "prompt 3 was 'a balloon' and is 'fog'"),
    ],
)
def test_results_of_other_settings_are_named_and_kept(tiny_pipe, measured, tmp_path, prompts, settings, message):
    file = measured.save(tmp_path / "base.jsonl")
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        istd(tiny_pipe, prompts, results=file, **SETTINGS | settings)
    assert file.read_bytes() == before


def test_a_file_that_is_something_else_is_kept(tiny_pipe, measured, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("buy milk")
    with pytest.raises(ValueError, match="holds no results of istd"):
        istd(tiny_pipe, PROMPTS, results=file, **SETTINGS)
    assert file.read_text() == "buy milk"
    lines = measured.save(tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_text("".join([*lines[:2], '{"numb\n', *lines[3:]]))
    with pytest.raises(ValueError, match=r"line 3 of .*a.jsonl is damaged"):
        ISTD.load(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("".join(lines[:3]))
    with pytest.raises(ValueError, match="holds 2 of 5 prompts; the first one missing is number 2"):
        ISTD.load(tmp_path / "a.jsonl")
    with pytest.raises(FileNotFoundError, match="no results at"):
        ISTD.load(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([], {}, "at least one prompt, got none"),
        (["a"], {"pixel_range": (1, 0)}, "from black to white"),
        (["a"], {"correction": 2}, "correction 0"),
    ],
)
def test_what_cannot_be_measured_is_named(tiny_pipe, prompts, settings, message):
    with pytest.raises(ValueError, match=message):
        istd(tiny_pipe, prompts, **settings)


def command(tiny_folder, folder, results: str, launcher: tuple[str, ...] = ()) -> list[str]:
    (folder / "prompts.txt").write_text("\n".join(PROMPTS * 4))
    words = ["--model", str(tiny_folder), "--prompts", str(folder / "prompts.txt"), "--num-ratios", "3"]
    words += ["--num-inference-steps", "2", "--batch-size", "6", "--results", str(folder / results)]
    return [sys.executable, "-m", *launcher, "smoothnb", "istd", *words]


def rows(file) -> list[str]:
    head, *lines = file.read_text().splitlines()
    return [head, *sorted(lines)]


def test_two_processes_and_a_killed_one_end_with_the_same_bits_as_one(tiny_folder, tmp_path):
    """On a CPU, through gloo."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    run = dict(env=environment, capture_output=True, text=True)
    alone = subprocess.run(command(tiny_folder, tmp_path, "one.jsonl"), **run)
    assert alone.returncode == 0 and "20 prompts" in alone.stdout, alone.stderr
    launcher = ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m")
    both = subprocess.run(command(tiny_folder, tmp_path, "two.jsonl", launcher), **run)
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("20 prompts") == 1, "the first process alone reports"

    killed = subprocess.Popen(command(tiny_folder, tmp_path, "killed.jsonl"), env=environment)
    file = tmp_path / "killed.jsonl"
    while killed.poll() is None and (not file.is_file() or file.read_bytes().count(b"\n") < 4):
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    there = file.read_bytes().count(b"\n")
    assert 4 <= there < 21, "killed while at work"
    again = subprocess.run(command(tiny_folder, tmp_path, "killed.jsonl"), **run)
    assert again.returncode == 0, again.stderr
    assert rows(tmp_path / "one.jsonl") == rows(tmp_path / "two.jsonl") == rows(file)
    assert len(rows(file)) == 21


def test_shipped_measurements_belong_to_the_shipped_models():
    from smoothnb import example_istd, load_pipeline, set_smoothness
    from smoothnb.models.load import fingerprint

    assert example_istd("base").model == fingerprint(load_pipeline("postcard"))
    assert example_istd("smooth").model == fingerprint(load_pipeline("postcard", smooth=True))
    for style in ("film", "neon"):
        assert example_istd(f"{style}-0").model == fingerprint(load_pipeline(f"postcard-{style}"))
        plugged = load_pipeline(f"postcard-{style}", smooth=True)
        for smoothness in (0.5, 1, 1.5):
            set_smoothness(plugged, smoothness)
            assert example_istd(f"{style}-{smoothness:g}").model == fingerprint(plugged)
    for file in (data_folder() / "istd").glob("*.jsonl"):
        assert ISTD.load(file).distances.shape == (48 if file.name[:4] in ("film", "neon") else 500, 10)
    with pytest.raises(ValueError, match=r"expected one of base.*got 'rough'"):
        example_istd("rough")
