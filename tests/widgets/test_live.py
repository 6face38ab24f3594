from smoothnb import LivePlot


def test_numbers_are_kept_by_name_and_drawn():
    plot = LivePlot("loss", "spread", interval=0)
    empty = plot.value
    assert plot.picture().size == (720, 220)
    plot.add(1, loss=2.0, spread=None, other=3.0)
    assert plot.values == {"loss": [(1, 2.0)], "spread": []}
    assert plot.value != empty


def test_what_comes_in_quickly_is_drawn_at_the_end():
    plot = LivePlot("loss", interval=60)
    before = plot.value
    plot.add(1, loss=2.0)
    assert plot.value == before
    plot.draw()
    assert plot.value != before


def test_the_numbers_are_told_in_words_too():
    plot = LivePlot("<loss>", "spread")
    assert 'alt="plot of &lt;loss&gt;, spread; no steps yet"' in plot.value
    plot.add(1, spread=2.0)
    plot.draw()
    assert 'alt="plot of &lt;loss&gt;, spread; spread 2"' in plot.value
