"""Tables in the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table


def print_sizes(title: str, sizes: Mapping[str, object], console: Console | None = None) -> None:
    """Prints two columns, a name and its value: the sizes that a run works with, given and derived."""
    table = Table("size", title=title, title_justify="left")
    table.add_column("value", overflow="fold")  # a path is of no use cut short
    for name, value in sizes.items():
        table.add_row(name, _shown(value))
    (console or Console(stderr=True)).print(table)


def print_results(
    title: str, columns: Sequence[str], rows: Sequence[Mapping[str, object]], console: Console | None = None
) -> None:
    """Prints a row per mapping, its values in the order of `columns`; '-' where it has none. Numbers to the right."""
    table = Table(title=title, title_justify="left")
    for name in columns:
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_shown(row.get(name)) for name in columns))
    (console or Console()).print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class GridView:
    """The states of a grid's cells: a table that redraws itself in a terminal, a line per change elsewhere."""

    def __init__(self, title: str, console: Console | None = None):
        self.title, self.console = title, console or Console(stderr=True)
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._told: dict[str, str] = {}

    def __enter__(self) -> "GridView":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def show(self, states: Mapping[str, str]) -> None:
        """Shows the states, cell name -> what it does."""
        finished = sum(state == "finished" for state in states.values())
        if self._live:
            table = Table(
                "cell", "state", title=f"{self.title}: {finished} of {len(states)} finished", title_justify="left"
            )
            for name, state in states.items():
                table.add_row(name, state)
            self._live.update(table, refresh=True)
            return
        for name, state in states.items():
            told = "running" if state.startswith("step") else state
            if told not in ("waiting", self._told.get(name)):
                self.console.print(f"{name}: {told}  ({finished} of {len(states)} finished)", highlight=False)
            self._told[name] = told
