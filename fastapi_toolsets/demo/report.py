"""What the demo prints: a progress bar while it runs, then tables; plain text where there is no terminal."""

import sys
from collections.abc import Generator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from .run import Advance, Run

PLAIN_WIDTH = 100
EVENT_STYLES = {"create": "green", "update": "yellow", "delete": "red"}


def open_console(*, color: bool) -> Console:
    """Return a console on standard output.

    Args:
        color: Whether to use colours where the terminal has them and ``NO_COLOR`` is not set.
    """
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # A letter that the terminal's encoding does not have is shown as a question mark instead of ending the demo.
        reconfigure(errors="replace")
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(no_color=None if color else True, width=width, highlight=False)


@contextmanager
def progress_bar(console: Console, label: str, total: int) -> Generator[Advance]:
    """Show a progress bar for the length of a block, on a terminal only.

    Yields:
        A function to call after each of the ``total`` pieces of work.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("transactions"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)


def print_deliveries(console: Console, run: Run) -> None:
    """Print what the callbacks were told, in the order in which they were called."""
    console.print(f"Events as delivered: {run.front_end}", style="bold")
    table = _table(console, "#", "event", "order", "changes", "callback")
    for position, delivery in enumerate(run.deliveries, start=1):
        cells = (str(position), delivery.event.value, delivery.order, delivery.changes, delivery.callback)
        table.add_row(*cells, style=EVENT_STYLES[delivery.event.value])
    console.print(table)
    console.print()


def print_rows(console: Console, run: Run) -> None:
    """Print the orders that are in the table at the end."""
    console.print("Orders in the database at the end", style="bold")
    table = _table(console, "number", "customer", "item", "quantity", "status")
    for row in run.rows:
        table.add_row(row.number, row.customer, row.item, str(row.quantity), row.status)
    console.print(table)
    console.print()


def print_summary(console: Console, over_http: Run, script: Run) -> bool:
    """Print the counts and times, and whether the two front-ends did the same.

    Returns:
        Whether they did: the same events in the same order, the same rows, the same refusals.
    """
    for run in (over_http, script):
        console.print(
            f"{run.front_end}: events delivered: {len(run.deliveries)}, orders left: {len(run.rows)}, "
            f"refused: {run.refused_orders} at import, {run.refused_changes} later, time: {run.seconds:.2f} s",
            soft_wrap=True,
        )
    differences = [
        name
        for name in ("deliveries", "rows", "refused_orders", "refused_changes")
        if getattr(over_http, name) != getattr(script, name)
    ]
    if differences:
        console.print(f"The front-ends differ in: {', '.join(differences)}.", style="bold red", soft_wrap=True)
        return False
    console.print("Both front-ends delivered the same events in the same order.", style="bold green")
    return True


def _table(console: Console, *columns: str) -> Table:
    # Without a terminal: ASCII lines, so that the output reads the same in any file, pager or mail.
    table = Table(box=box.ROUNDED if console.is_terminal else box.ASCII)
    for column in columns:
        table.add_column(column, justify="right" if column in {"#", "quantity"} else "left")
    return table
