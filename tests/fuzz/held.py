"""What every check holds an outcome against."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

from near import CANARY

T = TypeVar("T")


class Refused(Exception):
    """An input was refused as it should be: by an error of ours that keeps what is secret to itself."""


def taken(work: Callable[[], T], *errors: type[Exception], secret: bool = True) -> T:
    """What the work gives; else `Refused`. Any other error than these is the defect that we look for.

    Args:
        work: calls the parser.
        errors: what it may raise.
        secret: whether the input may be a secret, so that the error must not have the canary in it.
    """
    try:
        return work()
    except errors as error:
        if secret:
            silent(error)
        refusal = Refused(type(error).__name__)
    raise refusal


def silent(error: BaseException) -> None:
    """The canary is nowhere in the error, nor in what it was raised from."""
    said = "".join(traceback.format_exception(error)) + repr(vars(error))
    assert CANARY not in said, f"{type(error).__name__} says the secret"


def outcome(check: Callable[..., str | None]) -> Callable[..., str]:
    """The check, with a word for what became of the input."""

    def told(value: object) -> str:
        try:
            return check(value) or "taken"
        except Refused as refusal:
            return str(refusal)

    told.__name__ = check.__name__
    return told
