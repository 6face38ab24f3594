"""Diagrams that come with the package."""

from xml.etree import ElementTree

import pytest

import smoothnb as sn
from smoothnb._utils.files import data_folder

NAMES = ["attention", "drag", "inversion", "istd", "pipeline", "regularizer", "sphere"]
SVG = "{http://www.w3.org/2000/svg}"


def test_the_docstring_names_every_diagram():
    assert sorted(path.stem for path in (data_folder() / "diagrams").iterdir()) == NAMES
    assert all(f'"{name}"' in sn.diagram.__doc__ for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_diagrams_are_readable_and_described(name):
    data, metadata = sn.diagram(name)._repr_svg_()
    svg = ElementTree.fromstring(data)
    assert svg.find(f"{SVG}title").text
    assert metadata["alt"] == svg.find(f"{SVG}desc").text and len(metadata["alt"]) > 100
    # Subscripts are smaller. A white card is drawn first, so that text can be read in dark themes.
    assert min(int(text.get("font-size")) for text in svg.iter(f"{SVG}text")) >= 14
    assert svg.find(f"{SVG}rect").get("fill") == "#ffffff"
    assert not [found for found in svg.iter() if found.tag.endswith(("script", "image", "style"))]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=f"expected one of {', '.join(NAMES)}, got 'unet'"):
        sn.diagram("unet")
