import ast
import inspect
import re
from collections import Counter
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from tables import filled

import smoothnb
from smoothnb.cli import COMMANDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGE = Path(smoothnb.__file__).parent
RECIPES = {PACKAGE / "postcards" / name for name in ("diffusion.py", "fit.py")}
"""They train the postcard model, and leave the package for recipes/."""
# Pages of results are reached by links alone.
PAGES = sorted(page for page in DOCS.rglob("*.md") if DOCS / "results" not in page.parents)
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
DOCUMENTED = [
    name
    for page in sorted((DOCS / "api").glob("*.md"))
    for name in re.findall(r"(?m)^::: (\S+)$", page.read_text("utf-8"))
]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def entries(nav: list) -> list[str]:
    """Every page of a nav, however deep."""
    found = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += entries(value) if isinstance(value, list) else [value]
    return found


def modules() -> dict[str, list[Path]]:
    """The files of each module and sub-package."""
    single = {path.stem: [path] for path in PACKAGE.glob("*.py")}
    return single | {path.parent.name: sorted(path.parent.glob("*.py")) for path in PACKAGE.glob("*/__init__.py")}


def table() -> list[str]:
    """The modules that docs/architecture.md lists, in its order."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    return [
        name.removesuffix(".py") for name in re.findall(r"(?m)^\| `([\w.]+)` \|", text.split("## How a call runs")[0])
    ]


def test_every_public_name_is_on_one_api_page():
    assert Counter(name.split(".")[-1] for name in DOCUMENTED) == Counter(smoothnb.__all__)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_api_pages_name_the_module_where_a_name_is_defined(name):
    module, _, own = name.rpartition(".")
    assert getattr(import_module(module), own) is getattr(smoothnb, own)
    defined = set()
    for node in ast.parse((PACKAGE.parent / f"{module.replace('.', '/')}.py").read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        defined |= {getattr(target, "name", getattr(target, "id", None)) for target in targets}
    assert own in defined


def test_every_page_and_notebook_is_in_the_nav():
    nav = entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    notebooks = [f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")]
    pages = [page.relative_to(DOCS).as_posix() for page in PAGES]
    assert Counter(nav) == Counter(["index.md", "contributing.md", *notebooks, *pages])


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_tables_are_those_of_the_results(page):
    text = page.read_text("utf-8")
    assert text.count("<!-- table:") == text.count("<!-- end of table -->")
    assert filled(text) == text, "run python benchmarks/tables.py"


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_relative_links_lead_to_files(page):
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text("utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        file = link.partition("#")[0]
        assert "://" in file or (page.parent / file).exists(), link


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_code_fits_the_signatures(page):
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text("utf-8")):
        for call in ast.walk(ast.parse(block)):
            if isinstance(call, ast.Call) and (name := re.fullmatch(r"sn\.(\w+)", ast.unparse(call.func))):
                given = {keyword.arg: keyword.value for keyword in call.keywords}
                inspect.signature(getattr(smoothnb, name[1])).bind(*call.args, **given)


@pytest.mark.parametrize("page", WRITTEN, ids=relative)
def test_commands_have_the_options_that_are_given(page):
    text = page.read_text("utf-8").replace("\\\n", " ")
    for command, rest in re.findall(r"smoothnb (\w+)((?: [^\n`]*)?)", text):
        if command in COMMANDS:
            module, function = COMMANDS[command][0].split(":")
            options = inspect.signature(getattr(import_module(module), function)).parameters
            settings = next(iter(options.values())).annotation
            known = [field.name for field in fields(settings)] if is_dataclass(settings) else options
            assert {option.replace("-", "_") for option in re.findall(r"(?<= --)[\w-]+", rest)} <= {*known, "help"}


def test_architecture_lists_every_module_once():
    assert sorted(table()) == sorted(modules())


@pytest.mark.parametrize("name", sorted(modules()))
def test_modules_import_only_what_comes_before_them_in_that_list(name):
    before = table()[: table().index(name) + 1]
    for file in set(modules()[name]) - RECIPES if name != "__init__" else []:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "smoothnb":
                _, _, inner = node.module.partition(".")
                for found in [inner.partition(".")[0]] if inner else [alias.name for alias in node.names]:
                    assert found in before or found == "__version__", f"{file.name} imports {found}"
