"""The table that fills, on a pseudo-terminal: what is on the screen while connectors are asked, and afterwards."""

import os
import re
import select
import signal
import struct
import sys
import time
from collections.abc import Callable

import pytest

if os.name != "posix":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)
import fcntl
import pty
import termios

pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

PATIENCE = 60
"""How many seconds something may take that should come."""
WIDTH, HEIGHT = 80, 24
SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]")
LISTING = ("connector", "list-resources")


class Screen:
    """As much of a terminal as is used; anything else is an error. What has scrolled off cannot be reached any more."""

    def __init__(self) -> None:
        self.lines = [""]
        self.colours: set[str] = set()
        self.cursor = True
        self._row = self._column = 0
        self._rest = ""

    def feed(self, data: bytes) -> None:
        text = self._rest + data.decode(errors="replace")
        cut = text.rfind("\x1b") if re.search(r"\x1b(\[[?\d;]*)?$", text) else len(text)
        text, self._rest = text[:cut], text[cut:]
        assert "".join(one.group() for one in SEQUENCE.finditer(text)) == text, f"what is that? {text!r}"
        for one in SEQUENCE.finditer(text):
            if one.group() == "\r":
                self._column = 0
            elif one.group() == "\n":
                self._down()
            elif one[2]:
                self._obey(one[1], one[2])
            else:
                self._write(one.group())

    def _obey(self, given: str, what: str) -> None:
        match what, given:
            case "m", _:
                self.colours |= {code for code in given.split(";") if re.fullmatch("[349][0-7]", code)}
            case "A", _:
                self._row -= int(given or 1)
                assert self._row >= max(0, len(self.lines) - HEIGHT), "above the screen"
            case "K", "2":
                self.lines[self._row] = ""
            case (("l" | "h"), "?25"):
                self.cursor = what == "h"
            case _:
                pytest.fail(f"an unknown sequence: {given}{what}")

    def _write(self, character: str) -> None:
        if self._column == WIDTH:
            self._column = 0
            self._down()
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
        self._column += 1

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def text(self) -> str:
        """All that was ever shown and not taken back."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n") + "\n"

    def visible(self) -> list[str]:
        return [line.rstrip() for line in self.lines[-HEIGHT:]]


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.screen = Screen()
        self._child, self._fd = pty.fork()
        if self._child == 0:
            os.read(0, 1)  # until the terminal has its size
            signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, as nohup and some CI have it
            os.environ.update(environment)
            os.execv(sys.executable, [sys.executable, "-m", "mooring", *arguments])
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        modes = termios.tcgetattr(self._fd)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(self._fd, termios.TCSANOW, modes)
        os.write(self._fd, b"\n")

    def until(self, shown: Callable[[Screen], bool]) -> Screen:
        """Read until that is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while not shown(self.screen):
            assert self._read(), self.screen.text()
            assert time.monotonic() < deadline, self.screen.text()
        return self.screen

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def end(self) -> tuple[int, Screen]:
        """Wait for the end: the exit code, and what is left on the screen."""
        while self._read():
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1]), self.screen

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], PATIENCE)
        assert ready, self.screen.text()
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.screen.feed(data)
        return bool(data)


def add(cli, name: str, *more: str) -> None:
    cli("connector", "register", name, "-t", "acme", "-a", "key", "--token=-", "--no-verify", *more, input="s3cret")


@pytest.fixture
def slow(cli, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three connectors, of which one fails and one never comes to its end."""
    monkeypatch.setenv("ACME_SLOW", str(tmp_path / "slow"))
    add(cli, "bad", "--mode=deny")
    add(cli, "quick")
    add(cli, "slow", "--mode=slow")


def landed(screen: Screen) -> bool:
    """Whether all has been drawn that will be found."""
    return any(
        "2/3 connectors, 5 resources, 1 error" in line or "3/3 connectors, 5 res" in line for line in screen.lines
    )


@pytest.mark.parametrize("environment", [{"TERM": "xterm-256color"}, {"NO_COLOR": "1", "TERM": "xterm-256color"}])
def test_the_table_fills_and_an_interruption_leaves_a_clean_one(slow: None, environment: dict[str, str]) -> None:
    terminal = Terminal(*LISTING, **environment)
    screen = terminal.until(landed)
    head, *rows, bar = [line for line in screen.visible() if line]
    assert head.split() == ["CONNECTOR", "RESOURCE", "TYPE", "RESOURCE", "NAME"]
    assert sorted(tuple(row.split()) for row in rows if "Error" not in row) == [
        ("quick", "acme-account", "4711"),
        ("quick", "acme-bucket", "first"),
        ("quick", "acme-bucket", "second"),
        ("slow", "acme-account", "4711"),
        ("slow", "acme-bucket", "first"),
    ]
    assert [row.split()[0] for row in rows if "Error: acme does not accept" in row] == ["bad"]
    assert re.fullmatch(r"\d/3 connectors, 5 resources, 1 error \S+ 0:\d\d:\d\d", bar)
    assert not screen.cursor

    terminal.press(b"\x03")
    code, screen = terminal.end()
    assert code == 130
    assert screen.cursor
    assert bool(screen.colours) is ("NO_COLOR" not in environment)
    shown = screen.text().replace("^C", "").lstrip("\n")
    assert re.sub(r"[0-9a-f]{8}", "--ID----", shown) == (
        "ID        NAME   TYPE  RESOURCE TYPE  RESOURCE NAMES\n"
        "--ID----  bad    acme                 Error: acme does not accept the token;\n"
        "                                      give another\n"
        "--ID----  quick  acme  acme-account   4711\n"
        "                       acme-bucket    first\n"
        "                                      second\n"
        "--ID----  slow   acme  acme-account   4711\n"
        "                       acme-bucket    first\n"
        "Interrupted; this is what was found until then.\n"
    )


def test_a_dumb_terminal_gets_the_table_alone(slow: None, tmp_path) -> None:
    terminal = Terminal(*LISTING, TERM="dumb")
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "slow").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    terminal.press(b"\x03")
    code, screen = terminal.end()
    assert code == 130
    assert screen.colours == set()
    head, *_, last = screen.text().replace("^C", "").lstrip("\n").splitlines()
    assert (head.split()[0], last) == ("ID", "Interrupted; this is what was found until then.")
    assert "connectors," not in screen.text()


def test_what_fits_is_shown_and_how_much_more_there_is(cli, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SLOW", str(tmp_path / "slow"))
    monkeypatch.setenv("ACME_MANY", "300")
    add(cli, "many", "--mode=many", "-r", "acme-bucket")
    terminal = Terminal(*LISTING, TERM="xterm")
    screen = terminal.until(lambda screen: any("connector, 301 resources" in line for line in screen.lines))
    lines = [line for line in screen.visible() if line]
    rows = [line.split()[-1] for line in lines if "acme-bucket" in line]
    assert rows == [f"bucket-{number:06}" for number in range(300 - len(rows), 300)]
    assert len(rows) > HEIGHT // 2
    assert lines[-2] == f"... and {301 - len(rows)} more above"
    assert len(lines) < HEIGHT

    terminal.press(b"\x03")
    code, screen = terminal.end()
    shown = [line.split()[-1] for line in screen.text().splitlines() if "bucket-" in line or "first" in line]
    assert code == 130
    assert shown == [*(f"bucket-{number:06}" for number in range(300)), "first"]
    assert "more above" not in screen.text()
    assert "resources" not in screen.text()


def test_in_the_end_the_screen_is_as_the_plain_table(cli, process) -> None:
    add(cli, "one")
    add(cli, "bad", "--mode=deny")
    code, screen = Terminal(*LISTING, TERM="xterm").end()
    plain = process(*LISTING, env=os.environ | {"MOORING_COLUMNS": str(WIDTH)}).stdout
    assert code == 0
    assert screen.text() == "\n".join(line.rstrip() for line in plain.splitlines()) + "\n"
    assert screen.cursor


def test_data_is_not_mixed_with_what_is_live(cli) -> None:
    add(cli, "one")
    code, screen = Terminal(*LISTING, "-o", "json", TERM="xterm").end()
    assert (code, screen.text().splitlines()[0], screen.text().splitlines()[-1]) == (0, "[", "]")
