"""The demo's command line."""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from httpx import HTTPError

from .orders import OrderRecord, batches, read_orders, repeat_orders, steps_after_import
from .over_http import run_over_http
from .report import open_console, print_deliveries, print_rows, print_summary, progress_bar
from .script import run_script

MAXIMUM_ROWS = 10_000
MAXIMUM_PORT = 65_535
HOST = "127.0.0.1"
PORT = 8000

_OF_THE_PAGE = {"--host", "--port", "--database"}
_NOT_OF_THE_PAGE = {"--rows", "--no-color"}


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(arguments: Sequence[str]) -> int:
    """Run the demo.

    Args:
        arguments: The command line, without the program's name.

    Returns:
        The exit code: 0 when both front-ends did the same, 1 when they did not or the demo could not run; with
        ``--serve`` what :func:`.live.server.serve_page` returns.

    Raises:
        SystemExit: For ``--help`` with 0, for arguments that cannot be used with 2.
    """
    orders = read_orders()
    parser = _parser(len(orders))
    options = parser.parse_args(arguments)
    _refuse_mixture(parser, options)
    if options.serve:
        return _serve_page(options.host or HOST, PORT if options.port is None else options.port, options.database)
    rows = len(orders) if options.rows is None else options.rows
    try:
        return _compare_front_ends(repeat_orders(orders, rows), color=not options.no_color)
    except OSError as error:
        sys.stderr.write(f"The demo needs a temporary folder and a port on 127.0.0.1, and had to stop: {error}\n")
        return 1
    except HTTPError as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        sys.stderr.write(f"The demo's application did not answer as it should, see above if it said why: {reason}\n")
        return 1


def _refuse_mixture(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that the other form of the command has: they would be passed over without a word."""
    values = vars(options).items()
    given = {f"--{name.replace('_', '-')}" for name, value in values if value is not None and value is not False}
    for option in sorted(given & (_NOT_OF_THE_PAGE if options.serve else _OF_THE_PAGE)):
        parser.error(f"argument {option}: {'not allowed with' if options.serve else 'needs'} --serve")


def _serve_page(host: str, port: int, database: str | None) -> int:
    if find_spec("fastapi.sse") is None:
        sys.stderr.write(
            'The page needs FastAPI 0.135 or later: run pip install --upgrade "fastapi-toolsets[demo]" '
            "and start it again.\n"
        )
        return 2
    from .live.server import serve_page  # noqa: PLC0415 -- imports what was just looked for

    return serve_page(host, port, database)


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
            "Uses SQLite files in a temporary folder. With --serve it opens a page instead, which shows the orders and "
            "each event as it is delivered."
        ),
        usage=(
            "python -m fastapi_toolsets.demo [-h] [--rows N] [--no-color]\n"
            "       python -m fastapi_toolsets.demo --serve [--host HOST] [--port PORT] [--database URL]"
        ),
    )
    parser.add_argument(
        "--rows",
        type=_rows,
        metavar="N",
        help=f"import N orders, 1 to {MAXIMUM_ROWS}; past the file's {rows_in_file} it starts over with new numbers "
        f"(default: {rows_in_file})",
    )
    parser.add_argument("--no-color", action="store_true", help="no colours; setting NO_COLOR does the same")
    page = parser.add_argument_group("the page")
    page.add_argument("--serve", action="store_true", help="serve the page until Ctrl+C")
    page.add_argument("--host", help=f"the address to serve at (default: {HOST})")
    page.add_argument("--port", type=_port, help=f"the port to serve on, 0 for a free one (default: {PORT})")
    page.add_argument(
        "--database",
        metavar="URL",
        help="where the orders are kept, such as sqlite+aiosqlite:///orders.sqlite (default: a temporary file)",
    )
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= MAXIMUM_PORT):
        msg = f"{text!r} is not a port from 0 to {MAXIMUM_PORT}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _rows(text: str) -> int:
    try:
        rows = int(text)
    except ValueError:
        rows = 0
    if not 1 <= rows <= MAXIMUM_ROWS:
        msg = f"{text!r} is not a whole number from 1 to {MAXIMUM_ROWS}"
        raise argparse.ArgumentTypeError(msg)
    return rows
