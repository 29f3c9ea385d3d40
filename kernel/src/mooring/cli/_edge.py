"""The edge of the process: every way to end, as one line on stderr and one exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from mooring.cli._output import say
from mooring.cli._process import INTERRUPTED
from mooring.errors import ConfigError, MooringError, PluginError, StoreError, VaultError, VendorError
from mooring.masking import Masking

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What a write fails with. That of a store or a key is their room's error; a file that is open already is stdout."""
UNEXPECTED, USAGE, FAILED, UNHEARD = 1, 2, 7, 141
CODES: tuple[tuple[type[MooringError], int], ...] = (
    (ConfigError, USAGE),
    (PluginError, 3),
    (VendorError, 4),
    (StoreError, 5),
    (VaultError, 6),
)

EXIT_CODES = """\b
Exit codes:
  0    done
  1    unexpected; run again with --debug
  2    the command line, a name or a configuration is wrong
  3    a plugin is broken
  4    the vendor refused, or did not answer
  5    the store cannot be used
  6    a secret cannot be sealed or opened
  7    every connector failed (list-resources, register --all), or one did
       (list-resources --fail-fast), a check did (doctor, audit verify,
       plan --check), or what was to be taken back still works (lease revoke)
  130  interrupted, or a question was answered with no
  141  whoever read stdout has gone, as in: mooring ... | head -1"""


class Run:
    """One run of the command line: what was asked for globally, and the secrets that it has seen."""

    def __init__(self, *, lasting: bool = False) -> None:
        self.debug = False
        self.mask = Masking()
        self.lasting = lasting
        """Whether the process ends with it."""
        self.hushed = False
        """Whether what libraries log is held back."""

    def told(self, error: MooringError) -> str:
        """An error in one line."""
        after = f"; try again in {error.retry_after.total_seconds():g} s" if error.retry_after else ""
        return self.mask(error.message + after)

    def trace(self, error: BaseException) -> None:
        """Show a traceback, without local variables, masked."""
        import traceback

        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
        for line in self.mask(text).splitlines():
            say(line)


def fail(run: Run, errors: Sequence[MooringError]) -> None:
    """Tell of errors beside what was shown; the last one is the command's own."""
    for error in errors[:-1]:
        say(f"Error: {run.told(error)}")
    if errors:
        raise errors[-1]


def guarded(run: Run, work: Callable[[], Any]) -> int:
    """Do the work of a run; the exit code that it ends in."""
    try:
        code = work()
    except (KeyboardInterrupt, click.Abort):
        say("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        return UNHEARD
    except BaseException as error:  # noqa: BLE001  this is the edge; SystemExit may hold a text too, which is not shown
        code = error.code if isinstance(error, SystemExit) else None
        return code if isinstance(code, int) else _report(run, error)
    return code if isinstance(code, int) else 0


def _report(run: Run, error: BaseException) -> int:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the whole help
        click.echo(error.format_message(), file=sys.stderr)
        return USAGE
    if isinstance(error, click.ClickException):
        say(f"Error: {run.mask(_usage(error))}")
        return error.exit_code
    if run.debug:
        run.trace(error)
    if isinstance(error, MooringError):
        say(f"Error: {run.told(error)}")
        if run.debug and error.where:
            say(run.mask(f"Where: {', '.join(f'{key} {value}' for key, value in error.where.items())}"))
        return next((code for kind, code in CODES if isinstance(error, kind)), UNEXPECTED)
    if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename is None:
        say(f"Error: stdout cannot be written: {error.strerror}")
        return UNEXPECTED
    again = "" if run.debug else "; run again with --debug"  # its message may quote a secret
    say(f"Error: unexpected: {type(error).__name__}{again}")
    return UNEXPECTED


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        end = "" if message.endswith((".", "?", ")")) else ";"
        return f"{message}{end} see: {error.ctx.command_path} --help"
    return message
