import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from smoothnb import cli, example_picture
from smoothnb._utils.files import data_folder


@dataclass(frozen=True)
class Settings:
    """Settings of a command under test.

    Attributes:
        steps: How many.
        output: Where to.
    """

    steps: int = 3
    output: Path = Path("out")


@pytest.fixture
def calls(monkeypatch):
    seen = []

    def train(config: Settings) -> None:
        seen.append(config)

    def sheet(output: Path = Path("sheet.png"), count: int = 4) -> None:
        seen.append((output, count))

    modules = {
        "smoothnb.postcards.vae": SimpleNamespace(train=train),
        "smoothnb.postcards.sheet": SimpleNamespace(render_sheet=sheet),
    }
    monkeypatch.setattr(cli, "import_module", modules.__getitem__)
    return seen


def test_options_of_a_settings_object_have_no_prefix(calls):
    cli.main(["train-postcard", "vae", "--steps", "7"])
    assert calls == [Settings(steps=7)]


def test_options_of_a_function_are_its_arguments(calls):
    cli.main(["render-postcard-sheet", "--count", "9", "--output", "x.png"])
    assert calls == [(Path("x.png"), 9)]


def test_help_of_a_command_lists_what_its_settings_say(calls, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train-postcard", "vae", "--help"])
    assert stop.value.code == 0
    assert "How many." in capsys.readouterr().out
    assert calls == []


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(args, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize("args", [["train-postcard"], ["train-postcard", "wings"], ["fly"]])
def test_unknown_commands_exit_with_2_and_list_the_known(args, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert f"no command '{' '.join(args)}'" in err
    assert "evaluate-postcard" in err


def test_help_imports_no_torch():
    code = "import sys, smoothnb.cli as c; c.usage(); print(sorted({'torch', 'tyro', 'diffusers'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_command_exists():
    from importlib import import_module

    for where, _ in cli.COMMANDS.values():
        module, function = where.split(":")
        assert callable(getattr(import_module(module), function))


def test_a_picture_is_edited_on_the_command_line(tmp_path, capsys):
    _, prompt = example_picture("house")
    file, output = data_folder() / "pictures" / "house.png", tmp_path / "new" / "blue.png"
    words = ["--picture", str(file), "--prompt", prompt, "--target", "a blue house in a meadow at sunset"]
    cli.main(["edit", *words, "--output", str(output), "--steps", "4", "--blend", "red house"])
    assert capsys.readouterr().out == f"wrote {output}\n"
    with Image.open(output) as edited:
        assert edited.size == (128, 128)
    with pytest.raises(ValueError, match="is in no prompt"):
        cli.main(["edit", *words, "--steps", "1", "--blend", "zebra"])


def test_points_are_dragged_on_the_command_line(tmp_path, capsys):
    house, output = data_folder() / "pictures" / "house.png", tmp_path / "new" / "dragged.png"
    words = ["--picture", str(house), "--prompt", "a red house in a meadow at sunset", "--handles", "88", "176"]
    words += ["--output", str(output), "--max-steps", "1"]
    cli.main(["drag", *words, "--targets", "120", "176"])
    assert f"wrote {output}" in (said := capsys.readouterr().out) and "steps after 1 steps" in said
    with Image.open(output) as dragged:
        assert dragged.size == (128, 128)
    with pytest.raises(ValueError, match=r"target .300, 176. lies outside the picture"):
        cli.main(["drag", *words, "--targets", "300", "176"])
