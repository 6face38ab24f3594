import inspect
import pkgutil
from importlib import import_module

import pytest

import smoothnb


def test_every_public_name_is_there_and_documented():
    for name in smoothnb.__all__:
        assert inspect.getdoc(getattr(smoothnb, name)), name
    assert set(smoothnb.__all__) <= set(dir(smoothnb))
    assert sorted(smoothnb.__all__) == sorted(smoothnb._HOME)


@pytest.mark.parametrize("name", sorted(smoothnb._HOME))
def test_every_public_name_lives_where_the_list_says(name):
    assert getattr(import_module(f"smoothnb.{smoothnb._HOME[name]}"), name) is getattr(smoothnb, name)


def test_no_public_name_is_a_module_too():
    # Importing the module would put it in the place of what is public: sn.drag would no longer be the function.
    assert not set(smoothnb.__all__) & {module.name for module in pkgutil.iter_modules(smoothnb.__path__)}
    for module in ("dragging", "dragging.drag", "widgets.drag_editor"):
        import_module(f"smoothnb.{module}")
        assert inspect.isfunction(smoothnb.drag)


def test_other_names_raise():
    with pytest.raises(AttributeError, match="nosuchname"):
        _ = smoothnb.nosuchname
