"""The bundled CLI: `mooring`. Nothing but click is loaded before it is known what a command needs."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing takes longer to load than some need to press Ctrl-C
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its code; see `mooring --help` for the codes."""
    try:
        from mooring.cli import _process

        _process.enter()
        from mooring.cli._app import make_app
        from mooring.cli._edge import Run

        _process.hush()
        _process.leave(make_app().run(arguments, Run(lasting=True)))
    except KeyboardInterrupt:  # once more, or before there was anything that could take it
        os._exit(130)
