"""Who looks at pictures: known answers for pictures whose truth is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from smoothnb import PhotoJudge, ReaderJudge, path_lengths
from smoothnb.images import to_pil
from smoothnb.postcards.render import render
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes

BLUR = torch.nn.AvgPool2d(9, 1, 4)


@pytest.fixture(scope="module")
def judge() -> ReaderJudge:
    return ReaderJudge(real_count=96)


@pytest.fixture(scope="module")
def renders():
    return render(held_out_scenes(64))


def test_fid_is_the_same_again_and_grows_with_the_damage(judge, renders):
    clean, blurred, noise = (judge.fid(x) for x in (renders, BLUR(renders), torch.rand(renders.shape)))
    assert clean < blurred < noise
    assert judge.fid(renders) == pytest.approx(clean, rel=1e-4), "real features stay, the others go"


def test_renders_adhere_to_their_captions_and_not_to_others(judge, renders):
    prompts = held_out_prompts(64)
    own, others = (judge.adherence(renders, p) for p in (prompts, prompts[1:] + prompts[:1]))
    assert own["all"] > 0.97 and others["all"] < 0.6
    assert set(own) == {"all", "time", "land", "weather", "thing", "colour"}
    with pytest.raises(ValueError, match="no prompt states anything"):
        judge.adherence(renders[:1], ["a dog"])


def test_distances_are_of_pairs(judge, renders):
    found = judge.distances(renders[:3], torch.cat([renders[:1], BLUR(renders[1:2]), renders[5:6]]))
    assert found[0] == 0 and 0 < found[1] and found.shape == (3,)


def test_pil_images_are_looked_at_too(judge, renders):
    own, prompts = to_pil(renders), held_out_prompts(64)
    assert judge.fid(own) == pytest.approx(judge.fid(renders), rel=0.02)
    assert judge.adherence(own, prompts) == pytest.approx(judge.adherence(renders, prompts), abs=0.02)
    assert judge.distances(own[1:], own[:-1]).shape == (63,)


def test_path_lengths_of_a_known_distance(tiny_pipe):
    """With d = 1 for all pairs, every length is 1 / ε²; pictures come in pairs that are near each other."""
    seen = []

    def distances(ours, theirs):
        seen.append((ours - theirs).flatten(1).norm(dim=1))
        return torch.ones(len(ours))

    settings = dict(num_inference_steps=2, progress=False)
    found = path_lengths(tiny_pipe, ["a", "b", "c"], distances, epsilon=0.01, batch_size=4, **settings)
    assert found.tolist() == pytest.approx([1e4] * 3)
    near = torch.cat(seen)
    path_lengths(tiny_pipe, ["a", "b", "c"], distances, epsilon=0.5, batch_size=6, **settings)
    assert near.shape == (3,) and (0 < near).all() and (near * 10 < seen[-1]).all()
    for epsilon, prompts in ((0.0, ["a"]), (0.1, [])):
        with pytest.raises(ValueError, match="expected prompts and an epsilon"):
            path_lengths(tiny_pipe, prompts, distances, epsilon)


def test_path_lengths_do_not_depend_on_what_shares_a_batch(tiny_pipe, judge):
    lengths = [
        path_lengths(tiny_pipe, ["a", "b", "c"], judge.distances, 0.1, num_inference_steps=2, batch_size=n, seed=7,
                     progress=False)
        for n in (2, 99)
    ]  # fmt: skip
    torch.testing.assert_close(*lengths, rtol=0.02, atol=1e-4)
    assert len(set(lengths[0].tolist())) == 3


class Means(torch.nn.Module):
    """Stands in for Inception, whose weights are not here."""

    num_features = 3

    def forward(self, pictures):
        return pictures.mean((-2, -1))


def test_photographs_in_a_folder_are_brought_to_one_size(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 60 + i, 3), dtype=np.uint8)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    monkeypatch.setattr(PhotoJudge, "features", Means())
    judge = PhotoJudge(tmp_path, size=32)
    (real,) = judge.real()
    assert real.shape == (8, 3, 32, 32)
    assert judge.fid(real) == pytest.approx(0, abs=1e-4) and judge.fid(real / 2) > 0.01
    with pytest.raises(ValueError, match="found none in"):
        PhotoJudge(tmp_path / "empty")


def test_clip_score_is_asked_about_each_picture_and_its_prompt(tmp_path, monkeypatch):
    from torchmetrics import multimodal

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    asked = []

    class Score:
        def __init__(self, name):
            asked.append(name)

        def update(self, pictures, prompts):
            asked.append((tuple(pictures.shape), pictures.dtype, int(pictures.max()), prompts))

        def compute(self):
            return torch.tensor(31.5)

    monkeypatch.setattr(multimodal, "CLIPScore", Score)
    judge = PhotoJudge(tmp_path, clip="some/clip")
    assert judge.adherence(torch.ones(33, 3, 8, 8), ["x"] * 33) == {"all": 31.5}
    shape, last = ((32, 3, 8, 8), (1, 3, 8, 8))
    assert asked == ["some/clip", (shape, torch.uint8, 255, ["x"] * 32), (last, torch.uint8, 255, ["x"])]
