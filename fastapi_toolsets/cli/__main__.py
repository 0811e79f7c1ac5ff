"""Start the command, or say which extra it needs."""

import os
import sys
from importlib.util import find_spec

REQUIRED = ("libcst", "rich")


def main() -> int:
    """Run the command with the process's arguments and return its exit code.

    Returns:
        2 where a package of the ``cli`` extra is missing, 130 when it was interrupted, 141 when nobody reads its output
        any more, otherwise what :func:`.command.run` returns.
    """
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"fastapi-toolsets needs {' and '.join(missing)}, not installed here: "
            'run pip install "fastapi-toolsets[cli]" and start it again.\n'
        )
        return 2
    try:
        from .command import run  # noqa: PLC0415 -- imports the packages that were just looked for

        code = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("fastapi-toolsets was interrupted.\n")
        return 130
    except BrokenPipeError:
        # Python flushes standard output once more when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


if __name__ == "__main__":
    sys.exit(main())
