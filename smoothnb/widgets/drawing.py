"""Draws frames in a background thread, so that a widget can be used meanwhile."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence


class Drawing:
    """Draws the frames of several rows one at a time, alternating between rows.

    At most one `Drawing` runs at a time, as two would slow each other down: a new one stops the previous one.

    Args:
        rows: Iterators of frames by index of the row.
        places: Columns of the frames, in the order in which they are drawn.
        put: Called in the thread with row, column and frame.
        report: Called in the thread after each frame, and at the end.

    Attributes:
        running: Whether the thread is running.
        done: Number of frames drawn.
        total: Number of all frames.
        stopped: Whether it was asked to stop; a slow iterator can check this.
        error: The exception that ended the thread, or None.
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
        # An interrupted `Thread.join` can report a running thread as ended (Python 3.11).
        self._over = threading.Event()
        self._before, Drawing._latest = Drawing._latest, self
        if self._before:
            self._before.stop()
        report(self)
        threading.Thread(target=self._run, name="smoothnb drawing", daemon=True).start()

    @property
    def status(self) -> str:
        """Status message; empty once all frames are drawn."""
        if self.running:
            return f"{self.done} of {self.total} pictures drawn: the nearest one is shown instead of the others"
        if self.error:
            return f"stopped after {self.done} of {self.total} pictures. {type(self.error).__name__}: {self.error}"
        return "" if self.done == self.total else f"stopped after {self.done} of {self.total} pictures"

    def stop(self) -> None:
        """Stops after the current frame."""
        self.stopped = True

    def wait(self) -> None:
        """Blocks until all frames are drawn; Ctrl-C stops the drawing.

        Raises:
            RuntimeError: If the drawing was stopped.
            Exception: The exception that ended the thread.
        """
        try:
            while not self._over.wait(0.1):  # On Windows, Ctrl-C needs a timeout.
                pass
        except KeyboardInterrupt:
            self.stop()
            raise
        if self.error:
            raise self.error
        if self.done < self.total:
            raise RuntimeError(f"{self.status}: start again to draw them all")

    def _run(self) -> None:
        try:
            if self._before:
                self._before._over.wait()
            self._draw()
        except Exception as error:
            self.error = error
        finally:
            # Drops references to the pipeline.
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
