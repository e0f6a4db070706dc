"""A bar of steps in a terminal, one line per step elsewhere."""

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)


class Progress:
    """The steps as the user sees them: `with Progress(total_steps, done_steps, enabled) as p: p.update(step, ...)`.

    total_steps  the steps of the whole run; done_steps  those taken before (on resume)
    enabled      False where the user wants quiet: the steps are in the run's log only, as they are beside a bar
    stream       where a bar is drawn if it is a terminal; stderr unless given
    """

    def __init__(self, total_steps: int, done_steps: int, enabled: bool, stream=None):
        self.total_steps = total_steps
        self.enabled = enabled
        self.stream = sys.stderr if stream is None else stream
        self._started = time.monotonic()
        self._bar = None
        if enabled and self.stream.isatty():
            self._bar = tqdm(total=total_steps, initial=done_steps, unit="step", file=self.stream, dynamic_ncols=True)

    def update(
        self, step: int, *, reward: float, all_wrong_fraction: float, golden_injections: int, tokens_per_s: float
    ) -> None:
        """Shows step `step` (from 1) as done: mean reward, the share of groups without a right answer, the golden
        answers injected in this step, and generated plus trained tokens per second of the whole run."""
        shown = {
            "reward": f"{reward:.3f}",
            "all_wrong": f"{all_wrong_fraction:.2f}",
            "golden": str(golden_injections),
            "tokens/s": f"{tokens_per_s:,.0f}",
        }
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(step - self._bar.n)
        words = "  ".join(f"{name} {value}" for name, value in shown.items())
        level = logging.INFO if self.enabled and self._bar is None else logging.DEBUG
        log.log(level, "step %d/%d  %s  %.0f s", step, self.total_steps, words, time.monotonic() - self._started)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.close()
