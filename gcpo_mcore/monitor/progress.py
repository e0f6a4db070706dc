"""How far long work is: a bar in a terminal, plain lines elsewhere, with the time that is left."""

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)

FORM = "{percentage:3.0f}% |{bar:12}| {n_fmt}/{total_fmt}  {remaining} left  {desc}"
LINE_EVERY_S = 30.0  # of work that has no steps of its own to tell


class Progress:
    """The steps as the user sees them: `with Progress(total_steps, done_steps, enabled) as p: p.update(step, ...)`.

    total_steps  the steps of the whole run; done_steps  those taken before (on resume)
    enabled      False where the user wants quiet: the steps are in the run's log only, as they are beside a bar
    stream       where a bar is drawn if it is a terminal; stderr unless given
    """

    def __init__(self, total_steps: int, done_steps: int, enabled: bool, stream=None):
        self.total_steps, self.done_steps = total_steps, done_steps
        self.enabled = enabled
        self.stream = sys.stderr if stream is None else stream
        self._started = time.monotonic()
        self._held_out: float | None = None
        self._bar = None
        if enabled and self.stream.isatty():
            self._bar = tqdm(
                total=total_steps, initial=done_steps, unit="step", file=self.stream, dynamic_ncols=True,
                bar_format=FORM,
            )  # fmt: skip

    def update(
        self,
        step: int,
        *,
        reward: float,
        all_wrong_fraction: float,
        golden_injections: int,
        tokens_per_s: float,
        held_out: float | None = None,
    ) -> None:
        """Shows step `step` (from 1) as done: mean reward, the share of groups without a right answer, the golden
        answers injected in this step, generated plus trained tokens per second of the whole run, and the newest
        held-out accuracy, if there was an evaluation (None: that of before)."""
        self._held_out = self._held_out if held_out is None else held_out
        shown = {
            "reward": f"{reward:.3f}",
            "all_wrong": f"{all_wrong_fraction:.2f}",
            "golden": str(golden_injections),
            "tokens/s": f"{tokens_per_s:,.0f}",
            "held_out": "-" if self._held_out is None else f"{self._held_out:.3f}",
        }
        words = "  ".join(f"{name} {value}" for name, value in shown.items())
        if self._bar is not None:
            self._bar.set_description_str(words, refresh=False)
            self._bar.update(step - self._bar.n)
        level = logging.INFO if self.enabled and self._bar is None else logging.DEBUG
        took_s = time.monotonic() - self._started
        left = clock(took_s / max(step - self.done_steps, 1) * (self.total_steps - step))
        log.log(level, "step %d/%d  %s  %.0f s, %s left", step, self.total_steps, words, took_s, left)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Work:
    """Work that is counted: `with Work("rows", total) as work: work.advance(3)`.

    A bar if `stream` (stderr unless given) is a terminal, else a line every LINE_EVERY_S and one at the end.
    """

    def __init__(self, unit: str, total: int, stream=None):
        self.unit, self.total, self.done = unit, total, 0
        stream = sys.stderr if stream is None else stream
        self._started = self._told = time.monotonic()
        bar = tqdm(total=total, unit=f" {unit}", file=stream, dynamic_ncols=True) if stream.isatty() else None
        self._bar = bar

    def advance(self, count: int = 1) -> None:
        """Shows so many more as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._told >= LINE_EVERY_S:
            self._tell()

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.done:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        took_s = self._told - self._started
        left = clock(took_s / self.done * (self.total - self.done)) if self.done else "?"
        log.info("%s %s of %s  %.0f s, %s left", self.unit, f"{self.done:,}", f"{self.total:,}", took_s, left)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
