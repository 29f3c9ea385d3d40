"""Botocore's loggers say keys, tokens and whole answers at DEBUG; during calls of ours they do not.

Whether a call is ours is in a context variable, so what the host does with botocore itself is logged as ever.
"""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

_ours: ContextVar[bool] = ContextVar("mooring_aws_ours", default=False)


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Nothing below INFO is logged by botocore in here, and in the threads and tasks that are started in here."""
    _install()
    reset = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(reset)


def _passes(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or not _ours.get()


@cache
def _install() -> None:
    """A logger's filter sees its own records alone, not those of the loggers below it: so each gets it."""
    import aiobotocore
    import botocore

    for package in (aiobotocore, botocore):
        found = pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        for name in (package.__name__, *(module.name for module in found)):
            logging.getLogger(name).addFilter(_passes)
