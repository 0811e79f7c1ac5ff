"""Start the demo, or say which extra it needs."""

import sys
from importlib.util import find_spec

REQUIRED = ("aiosqlite", "fastapi", "greenlet", "httpx", "rich", "uvicorn")


def main() -> int:
    """Run the demo with the process's arguments and return its exit code.

    Returns:
        2 where a package of the ``demo`` extra is missing, 130 when it was interrupted, otherwise what
        :func:`.command.run` returns.
    """
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"The demo needs {', '.join(missing)}, not installed here: "
            'run pip install "fastapi-toolsets[demo]" and start it again.\n'
        )
        return 2
    try:
        from .command import run  # noqa: PLC0415 -- imports the packages that were just looked for

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("The demo was interrupted.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
