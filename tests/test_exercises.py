"""The exercises of the notebooks: each solution runs after the setup alone, and what it asserts is true."""

import ast
import builtins
import json
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch
from IPython.display import display

import smoothnb

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
EXERCISE = re.compile(r"^\*\*\d\.\*\* ", re.MULTILINE)
SOLUTION = re.compile(
    r"\n\n<details><summary>Solution</summary>\n\n```python\n(.+?)\n```\n\n.+?\n\n</details>", re.DOTALL
)
"""An exercise's solution, folded away, with blank lines around the code so that it renders everywhere."""
SCOPES = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def read(notebook: Path) -> tuple[list[str], list[str], list[str], list[str]]:
    """Code of the setup (from after the Colab cell to the first model), code after it, markdown, and solutions."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code" and "google.colab" not in "".join(c["source"])]
    prose = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    sources = ["".join(c["source"]) for c in code]
    first = next(i for i, source in enumerate(sources) if "load_pipeline(" in source)
    assert not any("nbval-skip" in c["metadata"].get("tags", []) for c in code[: first + 1])
    solutions = [solution for text in prose for solution in SOLUTION.findall(text)]
    return sources[: first + 1], sources[first + 1 :], prose, solutions


def bound(tree: ast.AST) -> Iterator[str]:
    """Names that code binds outside of functions and comprehensions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.alias):
            yield (getattr(node, "asname", None) or node.name).partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        if not isinstance(node, SCOPES):
            yield from bound(node)


def test_every_notebook_is_here():
    assert len(NOTEBOOKS) == 8


@each_notebook
def test_exercises_come_before_what_to_try_and_have_folded_solutions(notebook):
    prose = read(notebook)[2]
    text = "\n\n".join(prose)
    assert text.count("\n## Exercises\n") == 1
    assert text.index("\n## Exercises\n") < text.index("\n## Try next\n")
    exercises = [text for text in prose if EXERCISE.search(text)]
    assert len(exercises) >= 2
    for exercise in exercises:
        assert len(EXERCISE.findall(exercise)) == len(SOLUTION.findall(exercise)) == exercise.count("<details>") == 1


@each_notebook
def test_solutions_are_short_and_hold_at_the_end_of_the_notebook_too(notebook):
    setup, later, _, solutions = read(notebook)
    given, rebound = ({name for code in cells for name in bound(ast.parse(code))} for cells in (setup, later))
    for solution in solutions:
        tree = ast.parse(solution)
        nodes = list(ast.walk(tree))
        assert len(solution.splitlines()) <= 12
        assert any(isinstance(node, ast.Assert) for node in nodes)
        public = {n.attr for n in nodes if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "sn"}
        assert public <= set(smoothnb.__all__)
        names = {node.id for node in nodes if isinstance(node, ast.Name)} - set(bound(tree)) - set(dir(builtins))
        # Whoever ran the whole notebook has these as the setup left them.
        assert not names & given & rebound


@pytest.fixture
def quiet(monkeypatch):
    """No progress bars, no windows, and one thread, as others may be at work on the machine."""
    from matplotlib import pyplot

    monkeypatch.setenv("TQDM_DISABLE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matplotlib.use("Agg")
    yield
    pyplot.close("all")
    torch.set_num_threads(threads)


@pytest.mark.slow
@each_notebook
def test_solutions_run_after_the_setup_alone(notebook, quiet):
    setup, _, _, solutions = read(notebook)
    namespace = {"__name__": "__main__", "display": display}
    for code in setup:
        exec(code, namespace)
    for number, solution in enumerate(solutions, 1):
        exec(compile(solution, f"{notebook.stem}, solution {number}", "exec"), dict(namespace))
