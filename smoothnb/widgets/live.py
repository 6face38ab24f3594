"""A live plot."""

import base64
import html
import io
import statistics
import time

import ipywidgets as widgets
from PIL import Image

from smoothnb._utils.checks import at_least


class LivePlot(widgets.HTML):
    """Plots named numbers while they come in: dots, and their moving average over ten, with one panel for each name.

    Args:
        names: Names of the numbers.
        width: Width on screen, in pixels.
        interval: Minimum time between two updates, in seconds; each takes about 0.1 s.
    """

    def __init__(self, *names: str, width: int = 720, interval: float = 0.5):
        at_least(1, width=width)
        at_least(0, interval=interval)
        super().__init__()
        self.values: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
        self.interval, self._width, self._drawn = interval, width, 0.0
        self.draw()

    def __repr__(self) -> str:
        return f"LivePlot({', '.join(self.values)}: {max(map(len, self.values.values()), default=0)} steps)"

    def add(self, step: int, **values: float | None) -> None:
        """Adds the numbers of a step; other names, and None, are ignored, and NaN leaves a gap."""
        for name in self.values.keys() & values.keys():
            if values[name] is not None:
                self.values[name].append((step, float(values[name])))
        if time.monotonic() - self._drawn >= self.interval:
            self.draw()

    def draw(self) -> None:
        """Updates the plot; call it at the end, as `add` does not update it each time."""
        from matplotlib.figure import Figure

        # Not through pyplot, which would show the figure again below the cell.
        figure = Figure(figsize=(self._width / 100, 2.2), dpi=100, layout="constrained")
        panels = figure.subplots(1, len(self.values), squeeze=False)[0]
        for panel, (name, points) in zip(panels, self.values.items(), strict=True):
            steps, values = zip(*points, strict=True) if points else ((), ())
            means = [statistics.fmean(values[max(0, i - 9) : i + 1]) for i in range(len(values))]
            panel.plot(steps, values, ".", color="#b8c4d0")
            panel.plot(steps, means, color="#2f6690")
            panel.set_title(name, fontsize=9)
            panel.set_xlabel("step", fontsize=8)
            panel.tick_params(labelsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        self._png, self._drawn = buffer.getvalue(), time.monotonic()
        # With alternative text, which `Image` of ipywidgets does not support.
        last = [f"{name} {points[-1][1]:.3g}" for name, points in self.values.items() if points]
        said = html.escape(f"plot of {', '.join(self.values)}; {', '.join(last) or 'no steps yet'}")
        self.value = (
            f'<img alt="{said}" width="{self._width}" style="max-width:100%;aspect-ratio:{figure.bbox.width:g}/'
            f'{figure.bbox.height:g};background:white" src="data:image/png;base64,'
            f'{base64.b64encode(self._png).decode()}">'
        )

    def picture(self) -> Image.Image:
        """The current plot as a PIL image."""
        self.draw()
        return Image.open(io.BytesIO(self._png))
