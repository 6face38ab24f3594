"""The whole suite on a tiny pipeline: written, gone on with, refused."""

import json
from functools import partial

import pytest
from PIL import Image

from smoothnb import cli, load_pipeline
from smoothnb.evaluation import report as module
from smoothnb.evaluation.judges import ReaderJudge
from smoothnb.evaluation.report import report
from smoothnb.images import to_pil
from smoothnb.models.load import fingerprint
from smoothnb.models.lora import set_smoothness
from smoothnb.postcards.render import render
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes

PROMPTS = ["a red house at night", "a pine in the snow", "a sailboat"]


@pytest.fixture
def options(tiny_folder):
    return dict(
        candidates={name: partial(load_pipeline, tiny_folder) for name in ("base", "same")}, prompts=PROMPTS,
        judge=ReaderJudge(real_count=32), pictures=to_pil(render(held_out_scenes(2))),
        picture_prompts=held_out_prompts(2), num_inference_steps=2, num_path_lengths=2,
    )  # fmt: skip


def test_a_report_holds_every_table_and_is_gone_on_with(options, tmp_path, monkeypatch):
    comparison = report(output=tmp_path, **options)
    text = (tmp_path / "report.md").read_text()
    value = comparison.results["base"].value
    assert f"| base | {value:.2f} |" in text and "+0.0% | +0.0% to +0.0% | 0% of prompts" in text
    found = json.loads((tmp_path / "report.json").read_text())
    base, same = found["models"]["base"], found["models"]["same"]
    assert base["fid"] == pytest.approx(same["fid"], rel=1e-3) and f"| base | {base['fid']:.1f} |" in text
    assert base["path_lengths"] == pytest.approx(same["path_lengths"]) and len(base["path_lengths"]) == 2
    assert set(base["reconstruction"]) == {"DDIM inversion", "null-text inversion", "autoencoder alone (bound)"}
    assert f"| base | DDIM inversion | {base['reconstruction']['DDIM inversion']['mse']:.5f} |" in text
    assert found["settings"]["prompts"] == 3 and found["machine"]["torch"] in text
    for name in ("istd.png", "strips.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 600

    before = (tmp_path / "report.json").read_text()
    for measure in ("generate_pixels", "path_lengths", "reconstruction"):
        monkeypatch.setattr(module, measure, None)
    report(output=tmp_path, **options)
    assert (tmp_path / "report.json").read_text() == before and (tmp_path / "report.md").read_text() == text


def test_a_report_of_other_settings_or_models_is_named_and_kept(options, tmp_path):
    report(output=tmp_path, **options)
    before = (tmp_path / "report.json").read_text()
    with pytest.raises(ValueError, match=r"'prompts': 3.*'prompts': 2.*or another folder"):
        report(output=tmp_path, **options | {"prompts": PROMPTS[:2]})
    candidates = options["candidates"] | {"same": partial(load_pipeline, "postcard")}
    with pytest.raises(ValueError, match="holds another model as 'same'"):
        report(output=tmp_path, **options | {"candidates": candidates})
    assert (tmp_path / "report.json").read_text() == before


def test_a_model_may_have_a_smoothness_and_a_judge_a_style(tmp_path):
    usual = ["--num-inference-steps", "2", "--count", "8", "--walks", "2", "--reconstructions", "0"]
    models = ["base=postcard", "half=postcard+smooth@0.5", "whole=postcard+smooth"]
    cli.main(["report", *models, "--output", str(tmp_path), "--path-lengths", "0", "--style", "neon", *usual])
    found = json.loads((tmp_path / "report.json").read_text())["models"]
    half = load_pipeline("postcard", device="cpu", smooth=True)
    set_smoothness(half, 0.5)
    assert found["half"]["model"] == fingerprint(half) and found["whole"]["model"] != found["half"]["model"]
    # Plain postcards, looked at by who knows neon ones.
    assert found["base"]["adherence"]["style"] < 0.5
    assert "| in style ↑ |" in (tmp_path / "report.md").read_text()


def test_the_command_line_measures_compares_and_reports(tiny_folder, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    usual = ["--num-inference-steps", "2", "--prompts", str(tmp_path / "prompts.txt")]
    for name in ("base", "same"):
        file = str(tmp_path / f"{name}.jsonl")
        cli.main(["istd", "--model", str(tiny_folder), "--num-ratios", "3", "--results", file, *usual])
        assert f"wrote {file}" in (said := capsys.readouterr().out) and said.startswith("ISTD ")
    plot = tmp_path / "new" / "plot.png"
    cli.main(["compare", str(tmp_path / "base.jsonl"), str(tmp_path / "same.jsonl"), "--output", str(plot)])
    assert "| same |" in capsys.readouterr().out and plot.is_file()
    models = [f"base={tiny_folder}", f"same={tiny_folder}"]
    cli.main(["report", *models, "--output", str(tmp_path / "r"), *usual, "--reconstructions", "1"])
    assert "wrote" in capsys.readouterr().out and (tmp_path / "r" / "report.md").is_file()
    none = ["--reconstructions", "0", "--path-lengths", "0"]
    cli.main(["report", *models, "--output", str(tmp_path / "n"), *usual, *none])
    assert "drawn again" not in (text := (tmp_path / "n" / "report.md").read_text()) and "PPL" not in text
    with pytest.raises(ValueError, match="expected NAME=MODEL"):
        cli.main(["report", "postcard", "--output", str(tmp_path / "s")])
    with pytest.raises(ValueError, match="--real FOLDER"):
        cli.main(["report", *models, "--output", str(tmp_path / "s"), "--judge", "photo"])
    with pytest.raises(FileNotFoundError, match="no results at"):
        cli.main(["compare", str(tmp_path / "base.jsonl"), str(tmp_path / "fog.jsonl")])
