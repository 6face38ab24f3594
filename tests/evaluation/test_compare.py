"""Comparisons of models with a known difference."""

from dataclasses import replace

import pytest
import torch

from smoothnb import ISTD, compare, load_pipeline, set_smoothness
from smoothnb.evaluation._compare import most_uneven
from smoothnb.evaluation._istd import IstdSettings
from smoothnb.evaluation.bootstrap import interval
from smoothnb.models.load import fingerprint
from smoothnb.models.lora import SMOOTH, add_lora

GENERATOR = torch.Generator().manual_seed(0)
PROMPTS = tuple(f"prompt {i}" for i in range(200))
BASE = ISTD(torch.rand(200, 10, generator=GENERATOR) * torch.rand(200, 1, generator=GENERATOR), PROMPTS)
HALF = replace(BASE, distances=BASE.distances / 2)
SHUFFLED = replace(BASE, distances=BASE.distances[torch.randperm(200, generator=GENERATOR)])


def test_a_difference_on_every_prompt_is_sure_and_one_by_chance_is_not():
    found = compare({"base": BASE, "half": HALF, "shuffled": SHUFFLED})
    share, (low, high) = found.change("half")
    # Paired: both move together, so that half of it is half of it, whatever prompts are drawn.
    assert share == pytest.approx(-0.5) and low == pytest.approx(-0.5) and high == pytest.approx(-0.5)
    assert found.smoother("half") == 1
    share, (low, high) = found.change("shuffled")
    assert share == pytest.approx(0, abs=1e-6) and low < 0 < high and 0.4 < found.smoother("shuffled") < 0.6


def test_the_table_and_the_plot_show_every_model(tmp_path):
    found = compare({"base": BASE, "half": HALF})
    header, _, first, second = found.table().splitlines()
    assert "change from base" in header and "ISTD / mean step" in header
    assert first.startswith(f"| base | {BASE.value:.2f} |")
    assert "-50.0% | -50.0% to -50.0% | 100% of prompts" in second
    assert found._repr_markdown_() == found.table()
    figure = found.plot()
    figure.savefig(tmp_path / "plot.png")
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["base", "half"]
    assert "change from base" in right.get_xlabel()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(BASE, prompts=("fog",) * 200), "different prompts"),
        (replace(BASE, settings=IstdSettings(seed=3)), "different settings.*seed=3"),
    ],
)
def test_what_cannot_be_compared_is_named(other, message):
    with pytest.raises(ValueError, match=message):
        compare({"base": BASE, "other": other})


def test_one_alone_cannot_be_compared_nor_names_that_are_paths(tmp_path):
    with pytest.raises(ValueError, match="at least two models"):
        compare({"base": BASE})
    with pytest.raises(ValueError, match="names that are valid file names"):
        compare({"base": BASE, "../mine": HALF}, results=tmp_path)


def test_smoothness_values_of_one_pipeline_are_measured_and_it_is_left_as_it_was(tiny_folder, tmp_path):
    pipe = load_pipeline(tiny_folder)
    add_lora(pipe.unet, 2)
    torch.manual_seed(0)
    for name, p in pipe.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    set_smoothness(pipe, 0.25)
    before = fingerprint(pipe)
    settings = dict(num_ratios=3, num_inference_steps=2, progress=False)
    found = compare({"base": (pipe, 0), "smooth": (pipe, 1), "now": pipe}, ["a", "b"], tmp_path, **settings)
    assert fingerprint(pipe) == before
    assert len({result.model for result in found.results.values()}) == 3
    assert found.results["now"].model == before
    assert all(
        module.scaling[SMOOTH] == 0.25 for module in pipe.unet.modules() if SMOOTH in getattr(module, "scaling", {})
    )
    assert torch.equal(ISTD.load(tmp_path / "smooth.jsonl").distances, found.results["smooth"].distances)
    assert abs(found.change("smooth")[0]) > 1e-3


def test_the_most_uneven_walks_come_first():
    distances = torch.ones(3, 10)
    distances[1, 4], distances[2, 4] = 3, 9
    assert most_uneven(ISTD(distances, ("a", "b", "c")), 2) == [2, 1]


def test_intervals_ask_for_samples_that_pair_up():
    with pytest.raises(ValueError, match=r"equal length, at least 1, got \[2, 3\]"):
        interval([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"got \[0\]"):
        interval([])
