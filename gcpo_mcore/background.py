"""A function that runs beside the program, in a thread."""

import threading
from collections.abc import Callable


class Background:
    """Runs `function` in a thread, at once. What it raises is kept as `error` for whoever asks."""

    def __init__(self, function: Callable[[], None], name: str):
        self.error: Exception | None = None
        self._function = function
        # A process that ends by an error of its own does not wait for it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the function has neither returned nor raised."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Returns when the function has ended, well or not."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._function()
        except Exception as error:
            self.error = error
