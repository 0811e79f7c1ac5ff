"""The demo's command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from httpx import HTTPError

from .orders import OrderRecord, batches, read_orders, repeat_orders, steps_after_import
from .over_http import run_over_http
from .report import open_console, print_deliveries, print_rows, print_summary, progress_bar
from .script import run_script

MAXIMUM_ROWS = 10_000


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(arguments: Sequence[str]) -> int:
    """Run the demo.

    Args:
        arguments: The command line, without the program's name.

    Returns:
        The exit code: 0 when both front-ends did the same, 1 when they did not or the demo could not run.

    Raises:
        SystemExit: For ``--help`` with 0, for arguments that cannot be used with 2.
    """
    orders = read_orders()
    options = _parser(len(orders)).parse_args(arguments)
    try:
        return _compare_front_ends(repeat_orders(orders, options.rows), color=not options.no_color)
    except OSError as error:
        sys.stderr.write(f"The demo needs a temporary folder and a port on 127.0.0.1, and had to stop: {error}\n")
        return 1
    except HTTPError as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        sys.stderr.write(f"The demo's application did not answer as it should, see above if it said why: {reason}\n")
        return 1


def _compare_front_ends(orders: Sequence[OrderRecord], *, color: bool) -> int:
    console = open_console(color=color)
    steps = steps_after_import(orders)
    transactions = len(batches(orders)) + len(steps)
    with TemporaryDirectory(prefix="fastapi-toolsets-demo-") as folder:
        with progress_bar(console, "FastAPI over HTTP", transactions) as advance:
            over_http = run_over_http(orders, steps, Path(folder, "async.sqlite"), advance)
        with progress_bar(console, "Plain script", transactions) as advance:
            script = run_script(orders, steps, Path(folder, "sync.sqlite"), advance)
    print_deliveries(console, over_http)
    print_deliveries(console, script)
    print_rows(console, script)
    return 0 if print_summary(console, over_http, script) else 1


def _parser(rows_in_file: int) -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m fastapi_toolsets.demo",
        description=(
            "Imports orders from a CSV file, then updates and cancels some of them: once through a FastAPI application "
            "over HTTP on EventSession, once in a plain script on SyncEventSession. Prints the events as they were "
            "delivered to the same callbacks, and whether both front-ends delivered the same. "
            "Uses SQLite files in a temporary folder."
        ),
    )
    parser.add_argument(
        "--rows",
        type=_rows,
        default=rows_in_file,
        metavar="N",
        help=f"import N orders, 1 to {MAXIMUM_ROWS}; past the file's {rows_in_file} it starts over with new numbers "
        "(default: %(default)s)",
    )
    parser.add_argument("--no-color", action="store_true", help="no colours; setting NO_COLOR does the same")
    return parser


def _rows(text: str) -> int:
    try:
        rows = int(text)
    except ValueError:
        rows = 0
    if not 1 <= rows <= MAXIMUM_ROWS:
        msg = f"{text!r} is not a whole number from 1 to {MAXIMUM_ROWS}"
        raise argparse.ArgumentTypeError(msg)
    return rows
