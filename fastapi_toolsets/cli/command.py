"""The command line: its arguments, and which part of the command they start."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__

_MIGRATE = """\
Rewrite code for version 2 so that it does the same with version 3.

Shows what would change, as a diff; --write changes the files. Name the whole project at once: models inherit
callbacks from other files. What cannot be done safely is left as it is, with a TODO comment and a message.
"""
_MIGRATE_CODES = (
    "Exit codes: 0 all is done, 1 something would change or needs a person, 2 an error; then nothing is written."
)


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: The command line, without the program's name.

    Returns:
        The exit code: 0, 1 where a migration has something left to do, 2 where an error stopped it.

    Raises:
        SystemExit: For ``--help`` and ``--version`` with 0, for arguments that cannot be used with 2.
    """
    options = _parser().parse_args(arguments)
    # Imported when they are run: each needs libraries that take longer to load than the other command takes to run.
    if options.command == "listeners":
        from .listening import list_listeners  # noqa: PLC0415 - as above

        return list_listeners(options.modules, as_json=options.json)
    from .migrating import Mode, run_migration  # noqa: PLC0415 - as above

    mode = Mode.WRITE if options.write else Mode.CHECK if options.check else Mode.DIFF
    return run_migration(options.paths, mode)


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="fastapi-toolsets", description="Tools for projects that use fastapi_toolsets.")
    parser.add_argument("--version", action="version", version=f"fastapi-toolsets {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{migrate,listeners}")

    migrate = commands.add_parser("migrate", help="move code to a newer version of the library")
    versions = migrate.add_subparsers(dest="version", required=True, metavar="{v3}")
    v3 = versions.add_parser(
        "v3",
        help="from version 2 to version 3",
        description=_MIGRATE,
        epilog=_MIGRATE_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    v3.add_argument("paths", nargs="+", metavar="PATH", help="a Python file, or a folder with all that is below it")
    modes = v3.add_mutually_exclusive_group()
    modes.add_argument("--write", action="store_true", help="change the files")
    modes.add_argument("--check", action="store_true", help="only name the files that would change")

    listeners = commands.add_parser(
        "listeners",
        help="list what listens to what",
        description="Import modules and list every callback that is registered then, with the class it listens to.",
    )
    listeners.add_argument("modules", nargs="+", metavar="MODULE", help="a dotted name, such as app.main")
    listeners.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser
