import pytest
import torch

from smoothnb._utils.files import data_folder
from smoothnb.postcards.captions import stated
from smoothnb.postcards.reader import Reader, ReaderConfig, Reading, accuracy, load_reader, train, worn
from smoothnb.postcards.render import render
from smoothnb.postcards.scene import Scene
from smoothnb.postcards.stream import held_out_scenes


@pytest.fixture(scope="module")
def reader():
    return load_reader()


def test_the_shipped_reader_is_small_and_reads_held_out_renders(reader):
    assert (data_folder() / "reader.safetensors").stat().st_size <= 1e6
    measured = accuracy(reader, held_out_scenes(400))
    place = measured.pop("place")
    assert place <= 1.5
    assert min(measured.values()) >= 0.97, measured


def test_it_reads_pictures_of_any_size(reader):
    scene = Scene(thing="lighthouse", colour="red", x=40, y=80, time="noon", land="meadow")
    for size in (128, 256):
        reading = reader.read(render([scene], size))[0]
        assert reading.factors["thing"] == "lighthouse" and reading.factors["colour"] == "red"
        assert abs(reading.x - 40) < 3 and abs(reading.y - 80) < 3


def test_features_are_what_fid_asks_for(reader):
    features = reader(render(held_out_scenes(3)))
    assert features.shape == (3, reader.num_features)
    assert features.isfinite().all()


def test_agreement_is_judged_factor_by_factor():
    reading = Reading(
        {"thing": "house", "colour": "red", "time": "noon", "land": "sea", "weather": "clear"}, 20.0, 60.0
    )
    assert reading.agrees(stated("a blue house at noon")) == {"colour": False, "thing": True, "time": True}
    assert reading.agrees({}) == {}


def test_wear_changes_pictures_but_not_what_they_show():
    pictures = render(held_out_scenes(8))
    used = worn(pictures, torch.Generator().manual_seed(0))
    assert used.shape == pictures.shape
    assert 0.005 < (used - pictures).abs().mean() < 0.1


def test_training_runs_from_start_to_file(tmp_path, capsys):
    config = ReaderConfig(output=tmp_path, pool=32, steps=2, batch_size=4)
    trained = train(config)
    loaded = load_reader(tmp_path / "reader.safetensors")
    x = render(held_out_scenes(2))
    assert isinstance(trained, Reader)
    assert torch.allclose(trained(x), loaded(x), atol=0.02), "half precision keeps what was learned"
    assert "step 2" in capsys.readouterr().out
