"""A function in a thread beside the program, and the environment for a process beside it."""

import os
import threading
from collections.abc import Callable

OF_A_RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK",
             "ROLE_RANK", "ROLE_WORLD_SIZE")  # fmt: skip


def child_environment() -> dict[str, str]:
    """Returns this process's environment without what torchrun tells its ranks: for a child that is none."""
    return {k: v for k, v in os.environ.items() if k not in OF_A_RANK and not k.startswith("TORCHELASTIC_")}


class Background:
    """Runs `function` in a thread, at once. What it raises is kept as `error` for whoever asks."""

    def __init__(self, function: Callable[[], object], name: str):
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
