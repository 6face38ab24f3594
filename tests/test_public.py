import ast
import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import smoothnb


def test_every_public_name_is_there_and_documented():
    for name in smoothnb.__all__:
        assert inspect.getdoc(getattr(smoothnb, name)), name
    assert set(smoothnb.__all__) <= set(dir(smoothnb))


HOME = {
    alias.name: node.module
    for node in ast.parse(Path(smoothnb.__file__).with_suffix(".pyi").read_text("utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
"""The module of each public name, as the stub lists them."""


def test_the_stub_lists_every_public_name_of_the_chapters():
    # `walk` draws on the command line, `Progress` is what `train` gives to its callback.
    assert set(HOME) == set(smoothnb.__all__)
    for chapter in ("dragging", "editing", "evaluation", "figures", "inversion", "models", "training", "widgets"):
        names = set(import_module(f"smoothnb.{chapter}").__all__)
        assert names - {"walk", "Progress"} == {name for name, home in HOME.items() if home == chapter}


@pytest.mark.parametrize("name", sorted(HOME))
def test_every_public_name_lives_where_the_stub_says(name):
    assert getattr(import_module(f"smoothnb.{HOME[name]}"), name) is getattr(smoothnb, name)


def test_no_public_name_is_a_module_too():
    # Importing the module would put it in the place of what is public: sn.drag would no longer be the function.
    assert not set(smoothnb.__all__) & {module.name for module in pkgutil.iter_modules(smoothnb.__path__)}
    for module in ("dragging", "dragging._drag", "widgets.drag_editor"):
        import_module(f"smoothnb.{module}")
        assert inspect.isfunction(smoothnb.drag)


def test_other_names_raise():
    with pytest.raises(AttributeError, match="nosuchname"):
        _ = smoothnb.nosuchname
