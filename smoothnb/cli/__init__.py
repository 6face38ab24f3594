"""The `smoothnb` command. Each subcommand is a function, whose arguments are its options."""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from importlib import import_module

COMMANDS = {
    "train": ("smoothnb.training:train", "train a smooth LoRA"),
    "edit": ("smoothnb.cli.editing:edit", "edit a picture by text"),
    "drag": ("smoothnb.cli.editing:drag", "drag points of a picture to target positions"),
    "export": ("smoothnb.cli.editing:export", "convert a LoRA to another format"),
    "istd": ("smoothnb.cli.evaluation:istd", "measure how smooth a model is"),
    "compare": ("smoothnb.cli.evaluation:compare", "compare models that istd has measured"),
    "walk": ("smoothnb.cli.evaluation:walk", "draw one of the interpolations that istd measures"),
    "report": ("smoothnb.cli.evaluation:report", "write a report like the paper's tables"),
    "train-postcard vae": ("smoothnb.postcards.vae:train", "train the postcard autoencoder"),
    "train-postcard diffusion": ("smoothnb.postcards.diffusion:train", "train the postcard UNet and text encoder"),
    "train-postcard reader": ("smoothnb.postcards.reader:train", "train the Reader on renders"),
    "save-difference": ("smoothnb.cli.editing:save_difference", "save a fine-tuned postcard model for data/"),
    "evaluate-postcard": ("smoothnb.evaluation.postcards:main", "measure the postcard model and print a table"),
    "render-pictures": ("smoothnb.postcards.pictures:write_pictures", "draw the example pictures in data/"),
    "render-postcard-sheet": ("smoothnb.postcards.sheet:render_sheet", "draw random postcards on one sheet"),
}


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: smoothnb COMMAND [OPTIONS]", "", *lines, "", "`smoothnb COMMAND --help` lists options."])


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command, importing only its own module.

    Args:
        args: Command-line arguments; by default those of the program.
    """
    args = list(sys.argv[1:] if args is None else args)
    name = next((n for n in COMMANDS if args[: len(n.split())] == n.split()), None)
    if name is None:
        asked = not args or args[0] in ("-h", "--help")
        if not asked:
            print(f"smoothnb: no command {' '.join(args[:2])!r}", file=sys.stderr)
        print(usage(), file=sys.stdout if asked else sys.stderr)
        raise SystemExit(0 if asked else 2)

    import tyro

    module, function = COMMANDS[name][0].split(":")
    run = getattr(import_module(module), function)
    options = {"args": args[len(name.split()) :], "prog": f"smoothnb {name}", "description": COMMANDS[name][1]}
    settings = next(iter(inspect.signature(run).parameters.values())).annotation
    # The fields of a settings object become options: --steps, not --config.steps.
    if is_dataclass(settings):
        run(tyro.cli(settings, **options))
    else:
        tyro.cli(run, **options)
