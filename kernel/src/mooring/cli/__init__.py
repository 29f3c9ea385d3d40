"""The bundled CLI: `mooring`. Nothing but click is loaded before it is known what a command needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; see `mooring --help` for the codes."""
    try:
        import threading

        # What fails where nobody can catch it, after the broker is gone too, may quote anything; `_broker` shows it.
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None

        from mooring.cli._app import make_app

        make_app().main(arguments, prog_name="mooring")
    except KeyboardInterrupt:  # before there was anything that could take it
        sys.exit(130)
