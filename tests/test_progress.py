import pytest

from smoothnb.progress import progress_bar


@pytest.mark.parametrize(("variable", "shown", "visible"), [("0", True, True), ("0", False, False), ("1", True, False)])
def test_bars_are_hidden_by_argument_or_environment(monkeypatch, capsys, variable, shown, visible):
    monkeypatch.setenv("TQDM_DISABLE", variable)
    with progress_bar(3, "counting", shown) as bar:
        bar.update(3)
    assert ("counting" in capsys.readouterr().err) == visible
