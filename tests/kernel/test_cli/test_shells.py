"""Variables as text: every shell reads back just what was written, whatever it is."""

import os
import re
import shutil
import subprocess
from io import StringIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mooring.cli._shells import SHELLS
from mooring.errors import InvalidConfig

VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NASTY = "a'b\"c$(id)`id`\\${HOME}\n\t!*?[x]~;&|<> #é\u2019\u201b%PATH%\\'\\"
START = {"PATH": os.environ["PATH"], "OLD": "left from before", "LC_ALL": "C.UTF-8", "HOME": "/nowhere"}
COMMANDS = {
    "sh": ("posix", ["sh", "-ec"], "{}\nenv -0"),
    "bash": ("env", ["bash", "--norc", "-ec"], "{}\nenv -0"),
    "zsh": ("posix", ["zsh", "-fec"], "{}\nenv -0"),
    "fish": ("fish", ["fish", "--no-config", "-c"], "{}\nenv -0"),
    "pwsh": ("powershell", ["pwsh", "-NoProfile", "-Command"], "{}\nenv -0"),
}


def read_back(shell: str, variables: dict[str, str | None]) -> dict[str, str]:
    format, command, script = COMMANDS[shell]
    text = script.format(SHELLS[format](variables))
    shown = subprocess.run([*command, text], capture_output=True, check=True, env=START, timeout=60).stdout.decode()
    pairs = (line.partition("=") for line in shown.split("\0"))
    return {name: value for name, _, value in pairs if name in {*variables, "OLD"}}


@pytest.mark.parametrize("shell", COMMANDS)
def test_a_shell_reads_back_what_was_written(shell) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell} on the path")

    @given(VALUES, VALUES)
    @example(NASTY, "")
    @example("-n", "\n\n")
    @example("'", "\\")
    @settings(max_examples=40 if shell in ("sh", "bash", "zsh", "fish") else 5)
    def check(one: str, other: str) -> None:
        variables = {"OLD": None, "ONE": one, "OTHER": other}
        assert read_back(shell, variables) == {"ONE": one, "OTHER": other}

    check()


@pytest.mark.parametrize(
    ("format", "value", "written"),
    [
        ("fish", "a'b\\c\n", "set -gx A 'a\\'b\\\\c\n'"),
        ("powershell", "a'b\u2018c\u2019$x`", "$env:A = 'a''b\u2018\u2018c\u2019\u2019$x`'"),
        ("powershell", "\u201a\u201b", "$env:A = '\u201a\u201a\u201b\u201b'"),
        ("dotenv", "", "A="),
        ("dotenv", "https://x:1/y%20z@+,-=", "A=https://x:1/y%20z@+,-="),
    ],
)
def test_how_a_value_is_quoted(format, value, written) -> None:
    assert SHELLS[format]({"A": value}) == f"{written}\n"


@settings(max_examples=300)
@given(VALUES)
@example("a#b c")
@example("${X}")
@example("é")
@example("a b")
@example("'a'")
def test_a_dotenv_file_is_read_alike_by_docker_a_library_and_a_shell_or_refused(value) -> None:
    if re.search(r"[^A-Za-z0-9_./:@%+=,-]", value):
        with pytest.raises(InvalidConfig, match=r"the value of ONE needs quotes, .*; use the format 'env'"):
            SHELLS["dotenv"]({"ONE": value})
    else:
        read_alike(value)


@pytest.mark.parametrize(
    "value", ["", "wJalrXUtnFEMI/K7MDENG+bPxRfiCY=", "http://127.0.0.1:1", "=", "%41", "a,b", "-n"]
)
def test_a_value_of_a_dotenv_file_that_needs_no_quotes(value) -> None:
    read_alike(value)


def read_alike(value: str) -> None:
    dotenv = pytest.importorskip("dotenv")
    text = SHELLS["dotenv"]({"ONE": value, "OLD": None})
    lines = (line.lstrip() for line in text.splitlines())  # docker: all after the first = as it is, comments aside
    assert dict(line.split("=", 1) for line in lines if line and not line.startswith("#")) == {"ONE": value}
    assert dict(dotenv.dotenv_values(stream=StringIO(text, newline=""))) == {"ONE": value}
    script = f"set -a\n{text}env -0"
    shown = subprocess.run(["sh", "-ec", script], capture_output=True, check=True, env=START, timeout=60).stdout
    assert f"ONE={value}".encode() in shown.split(b"\0")
