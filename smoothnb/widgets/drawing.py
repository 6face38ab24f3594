"""Takes frames from iterators in a thread, so that a widget is there, and can be moved, while they are drawn."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence


class Drawing:
    """Frames of several rows, drawn one at a time, the rows in turn; whatever `put` takes is a frame.

    One thread draws everything, as two would slow each other: at most one `Drawing` runs at a time, and a new one stops
    the one before it.

    Args:
        rows: By number of the row: where its frames come from, one for each place.
        places: In the order in which frames come.
        put: Called in the thread with row, place and frame.
        report: Called in the thread after each frame, and at the end.

    Attributes:
        running: Whether frames are still to be expected.
        done: How many frames have come.
        total: How many are to come, in all.
        stopped: Whether it was told to end. What takes long over a frame may ask, and finish it sooner.
        error: What the thread died of, if it did.
    """

    _latest: "Drawing | None" = None

    def __init__(
        self,
        rows: Mapping[int, Iterator],
        places: Sequence[int],
        put: Callable[[int, int, object], None],
        report: Callable[["Drawing"], None],
    ):
        self._rows, self._places, self._put, self._report = rows, places, put, report
        self.done, self.total = 0, len(rows) * len(places)
        self.running, self.error, self.stopped = True, None, False
        # An interrupted `Thread.join` can take a thread that runs for one that has ended (Python 3.11).
        self._over = threading.Event()
        self._before, Drawing._latest = Drawing._latest, self
        if self._before:
            self._before.stop()
        report(self)
        threading.Thread(target=self._run, name="smoothnb drawing", daemon=True).start()

    @property
    def status(self) -> str:
        """What to tell the reader; nothing once all frames are there."""
        if self.running:
            return f"{self.done} of {self.total} pictures drawn: the nearest stands in for those to come"
        if self.error:
            return f"stopped after {self.done} of {self.total} pictures. {type(self.error).__name__}: {self.error}"
        return "" if self.done == self.total else f"stopped after {self.done} of {self.total} pictures"

    def stop(self) -> None:
        """Ends it after the frame at hand."""
        self.stopped = True

    def wait(self) -> None:
        """Blocks until all frames are there; Ctrl-C stops it.

        Raises:
            RuntimeError: If it was stopped before.
            Exception: What the thread died of.
        """
        try:
            while not self._over.wait(0.1):  # Without a limit, Ctrl-C would not get through on Windows.
                pass
        except KeyboardInterrupt:
            self.stop()
            raise
        if self.error:
            raise self.error
        if self.done < self.total:
            raise RuntimeError(f"{self.status}: begin anew to draw them all")

    def _run(self) -> None:
        try:
            if self._before:
                self._before._over.wait()
            self._draw()
        except Exception as error:
            self.error = error
        finally:
            # Nothing that holds a pipeline is kept.
            self._rows, self._before, self.running = {}, None, False
            self._report(self)
            self._over.set()

    def _draw(self) -> None:
        for count, place in enumerate(self._places):
            for row, frames in self._rows.items():
                if self.stopped:
                    return
                frame = next(frames, None)
                if frame is None:
                    raise ValueError(f"expected {len(self._places)} frames in every row, got {count}")
                self._put(row, place, frame)
                self.done += 1
                self._report(self)
        if any(next(frames, None) is not None for frames in self._rows.values()):
            raise ValueError(f"expected {len(self._places)} frames in every row, one for each ratio, got more")
