"""Questions, one after the other, line by line: no cursor is moved, so that a dumb terminal will do, or a pipe."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from getpass import getpass
from typing import TYPE_CHECKING, TypeVar

import click

from mooring.cli._output import printable, say
from mooring.cli._process import INTERRUPTED, begin
from mooring.cli._signals import typing_hidden
from mooring.errors import ConfigError, InvalidConfig

if TYPE_CHECKING:
    from mooring.cli._edge import Run

T = TypeVar("T")

INTRO = "Enter takes what stands in [brackets]; @FILE reads a value from a file; Ctrl-C ends it, and leaves nothing."
PAGE = 20
"""How many choices are shown at once."""
LONGEST_LINE = 4095
"""How many bytes a terminal takes in one line (termios(3)); it drops what is beyond without a word."""
NUMBER = re.compile("[1-9][0-9]{0,8}")
YES, NO = ("y", "yes"), ("n", "no")


class Guide:
    """Asks. Where no person answers, a wrong answer ends it: the next line may be a secret, meant for another question.

    Args:
        run: its mask hides secrets in what is said of answers.
        undone: what is true as long as questions are asked, such as `nothing was registered`; to be set anew for work
            that may be done when an interruption is heard.
    """

    def __init__(self, run: Run, undone: str) -> None:
        begin()  # the terminal shall show again what is typed
        self.run = run
        self.undone = undone
        self.person = sys.stdin.isatty()

    def ask(
        self, what: str, read: Callable[[str], T], *, about: str = "", default: str | None = None, hidden: bool = False
    ) -> T:
        """What `read` makes of the answer; asked again until it takes one.

        Args:
            what: the name of what is asked for.
            read: raises ConfigError where the answer will not do.
            about: a help text.
            default: what an empty answer stands for, which is shown; None: there must be an answer.
            hidden: whether the answer is a secret, and not shown as it is typed.

        Raises:
            InvalidConfig: the input ended, or nobody is there to give a better answer.
        """
        notes = ", ".join(filter(None, (about, "not shown" if hidden else "")))
        label = what + (f" ({notes})" if notes else "") + (f" [{default}]" if default else "") + ": "
        while True:
            try:
                text = self._line(what, printable(label), hidden=hidden) or default
                if text is None:
                    raise InvalidConfig("an answer is needed")
                return read(text)
            except EOFError:
                problem, ended = f"the input ended before {what} was given; {self.undone}", True
            except ConfigError as error:
                problem, ended = self.run.told(error), False
            if ended or not self.person:
                raise InvalidConfig(problem if ended else f"{what}: {problem}; {self.undone}")
            say(f"  Error: {problem}")

    def confirm(self, question: str, *, default: bool = True) -> bool:
        """Yes or no."""

        def read(text: str) -> bool:
            if text.lower() not in (*YES, *NO):
                raise InvalidConfig("answer y or n")
            return text.lower() in YES

        return self.ask(f"{question} y or n", read, default="y" if default else "n")

    def choose(self, what: str, choices: Sequence[tuple[str, str]], *, default: str | None = None) -> str:
        """One of several, by its number or its name.

        Many are shown in pages; a part of a name shows those that have it.

        Args:
            what: what they are.
            choices: each with a help text.
            default: the name of the one that an empty answer stands for; "" for none of them.
        """
        view = _View(choices)
        view.show()
        names = [name for name, _ in choices]
        more = len(choices) > PAGE
        hint = "a number, a name or a part of one; + for more" if more else ""

        def read(text: str) -> str:
            if text in names or (text == default == ""):
                return text
            if NUMBER.fullmatch(text) and int(text) <= len(names):
                return names[int(text) - 1]
            if not (more and self.person):
                raise InvalidConfig(f"give a number from 1 to {len(names)}, or a name")
            if text == "+":
                view.turn()
            elif not view.narrow(text):
                raise InvalidConfig(f"no name has that in it; give a part of one, or a number from 1 to {len(names)}")
            raise _Again

        while True:
            try:
                return self.ask(what, read, about=hint, default="+" if more and default is None else default)
            except _Again:
                view.show()

    def give_up(self) -> None:
        """End the command as somebody who said no."""
        say(f"{self.undone[0].upper()}{self.undone[1:]}.")
        raise click.exceptions.Exit(INTERRUPTED)

    def _line(self, what: str, label: str, *, hidden: bool) -> str:
        """A line, without its end.

        Raises:
            EOFError: there is none.
            InvalidConfig: it cannot be what was meant.
        """
        try:
            if hidden and self.person:
                text = _hidden(label)
            else:
                click.echo(label, nl=False, file=sys.stderr)
                text = sys.stdin.readline()
                if not text:
                    click.echo(file=sys.stderr)
                    raise EOFError
                text = text.removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            problem = "it is not text in UTF-8; give it as @FILE"
        else:
            text = text if hidden else text.strip()
            self.run.mask.learn(*([text] if hidden and text else []))
            if self.person and len(text.encode(errors="replace")) >= LONGEST_LINE:
                problem = "a terminal takes no longer line; give it as @FILE"
            elif text.startswith("-----BEGIN "):
                problem = "it has several lines; give it as @FILE"
            elif not hidden and not text.isprintable():
                problem = "it has control characters, which the arrow keys make; type it again"
            else:
                return text
        raise InvalidConfig(problem)


def _hidden(label: str) -> str:
    try:
        with typing_hidden():
            return getpass(label, sys.stderr)
    except EOFError:
        click.echo(file=sys.stderr)
        raise


class _Again(Exception):
    """Raised when an answer was no choice yet."""


class _View:
    """What is shown of choices: a page of those that have a text in their name."""

    def __init__(self, choices: Sequence[tuple[str, str]]) -> None:
        self._choices = list(enumerate(choices, 1))
        self._shown = self._choices
        self._start = 0

    def narrow(self, part: str) -> bool:
        """Show only those with that in their name, if there are some; whether there are."""
        if found := [one for one in self._choices if part.lower() in one[1][0].lower()]:
            self._shown, self._start = found, 0
        return bool(found)

    def turn(self) -> None:
        """The next page; after the last, the first of all."""
        self._start += PAGE
        if self._start >= len(self._shown):
            self._shown, self._start = self._choices, 0

    def show(self) -> None:
        """Write the page."""
        page = self._shown[self._start : self._start + PAGE]
        for number, (name, about) in page:
            say(f"  {number}) {name}" + (f"  ({about})" if about else ""))
        if len(page) < len(self._choices):
            say(f"  ... {self._start + 1} to {self._start + len(page)} of {len(self._shown)}")


def is_path(text: str) -> bool:
    """Whether a value is read from a file."""
    return text.startswith("@") and not text.startswith("@@")


def stored() -> bool:
    """Whether there may be a store already: who only looks makes none."""
    from mooring.assembly import settings_from

    settings = settings_from()
    return settings.store is not None or settings.store_file.exists()


@contextmanager
def guiding(run: Run, undone: str) -> Generator[Guide, None, None]:
    """Questions, of which Ctrl-C leaves nothing behind; says so, and ends the command."""
    guide = Guide(run, undone)
    try:
        yield guide
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            click.echo(file=sys.stderr)
        say(f"Aborted, {guide.undone}.")
        raise click.exceptions.Exit(INTERRUPTED) from None


def show_summary(rows: Sequence[tuple[str, str]]) -> None:
    """What was answered, before anything is done with it."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"  {name.ljust(width)}  {value}")


def show_command(words: Sequence[str], *, asks: bool = False) -> None:
    """The command that does the same without questions.

    Args:
        words: as the shell shall hand them over; printable.
        asks: whether a secret in it is a `-`.
    """
    say("The same without questions:")
    say(f"  {shlex.join(words)}")
    if asks:
        say("Each - is asked for on a terminal, and read from standard input elsewhere; in scripts, give @FILE.")
