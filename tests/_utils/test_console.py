import pytest
import tqdm.notebook

from smoothnb._utils import console
from smoothnb._utils.console import progress_bar


@pytest.mark.parametrize(("variable", "shown", "visible"), [("0", True, True), ("0", False, False), ("1", True, False)])
def test_bars_are_hidden_by_argument_or_environment(monkeypatch, capsys, variable, shown, visible):
    monkeypatch.setenv("TQDM_DISABLE", variable)
    with progress_bar(3, "counting", shown) as bar:
        bar.update(3)
    assert ("counting" in capsys.readouterr().err) == visible


@pytest.mark.parametrize("total", [5, None])
@pytest.mark.parametrize("within", [False, True])
def test_in_a_notebook_a_bar_that_is_interrupted_goes_away(monkeypatch, total, within):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(console, "tqdm", tqdm.notebook.tqdm)
    bars = []

    def count():
        with progress_bar(total, "counting") as bar:
            bars.append(bar)
            bar.update(2)
            if within:
                # As tqdm does when it is interrupted itself.
                bar.disp(bar_style="danger")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count()
    (bar,) = bars
    assert bar.container.layout.visibility == "hidden"
