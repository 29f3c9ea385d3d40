"""`exec`: the child's variables, files, output, signals and end, each seen from real processes."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="exec is for POSIX systems")
SECRET = "s3cr3t+with/some=more"
FIRST = ("one", "-r", "acme-bucket", "-i", "first")
FULL = 60_000
"""Bytes from which on a pipe counts as full (pipe(7): 64 KiB)."""
ENDS = 60
"""Seconds after which what has not ended counts as hanging."""
LOOK = """
import json, os, stat
from pathlib import Path
found = {name: value for name, value in os.environ.items() if name.startswith("ACME_")}
if file := os.environ.get("ACME_FILE"):
    path = Path(file)
    found["content"] = path.read_text()
    found["modes"] = [oct(stat.S_IMODE(one.stat().st_mode)) for one in (path, path.parent)]
print(json.dumps(found)[::-1])
"""
"""Backwards, so that nothing is masked."""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(registered, monkeypatch) -> Start:
    """Start `mooring exec` in a process of its own."""
    monkeypatch.setenv("ACME_GIVES", SECRET)
    monkeypatch.setenv("ACME_OLD", "left from before")

    def start(*arguments: str, **options) -> subprocess.Popen[bytes]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([sys.executable, "-m", "mooring", "exec", *arguments], **options)

    return start


@pytest.fixture
def run(start) -> Callable[..., tuple[int, str, str]]:
    """Run it to its end: code, stdout, stderr."""

    def run(*arguments: str, **options) -> tuple[int, str, str]:
        with start(*arguments, **options) as process:
            out, err = process.communicate(timeout=ENDS)
        return process.returncode, (out or b"").decode(), (err or b"").decode()

    return run


def python(script: str, *arguments: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", script, *arguments)


def waiting(pipe: int) -> int:
    """How many bytes are in a pipe."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


def left(home: Path) -> list[str]:
    folder = home / "run"
    return sorted(one.name for one in folder.iterdir()) if folder.exists() else []


def test_the_child_has_variables_and_the_file(run, home, monkeypatch) -> None:
    monkeypatch.setenv("ACME_FILES", "1")
    code, out, err = run(*FIRST, *python(LOOK))
    found = json.loads(out.strip()[::-1])
    assert (code, err) == (0, "")
    assert (found["ACME_USER"], found["ACME_PASSWORD"], found["content"]) == ("robot", SECRET, SECRET)
    assert "ACME_OLD" not in found
    assert found["modes"] == ["0o600", "0o700"]
    assert not Path(found["ACME_FILE"]).exists()
    assert left(home) == []
    assert Path(found["ACME_FILE"]).is_relative_to(home)


def test_the_child_has_the_folder_of_a_file_that_is_found_by_it(run, home, monkeypatch) -> None:
    monkeypatch.setenv("ACME_FILES", "folder")
    script = 'cd "$ACME_FOLDER" && stat -c "%a %n" "$PWD" *; tr a-z A-Z < acme.conf'
    code, out, err = run(*FIRST, "--", "sh", "-c", script)
    (mode, folder), (its_mode, name) = (line.split(" ") for line in out.splitlines()[:2])
    assert (code, err, mode, its_mode, name) == (0, "", "700", "600", "acme.conf")
    assert Path(folder).parts[-2:] == ("acme", "conf.d")
    assert out.splitlines()[2] == SECRET.upper()
    assert left(home) == []


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_its_exit_code_is_ours(run, code) -> None:
    assert run(*FIRST, "--", "sh", "-c", f"exit {code}") == (code, "", "")


def test_the_signal_that_ends_it_is_told_by_128_and_its_number(run, home, monkeypatch) -> None:
    monkeypatch.setenv("ACME_FILES", "1")
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        assert run(*FIRST, "--", "sh", "-c", f"kill -{int(number)} $$") == (128 + number, "", "")
    assert left(home) == []


def test_a_command_that_cannot_be_run(run, tmp_path, home, monkeypatch) -> None:
    monkeypatch.setenv("ACME_FILES", "1")
    plain = tmp_path / "plain"
    plain.write_text("")
    no = "Error: the command cannot be run:"
    assert run(*FIRST, "--", "no-such-command-4711") == (127, "", f"{no} No such file or directory\n")
    assert run(*FIRST, "--", str(plain)) == (126, "", f"{no} Permission denied\n")
    assert left(home) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_goes_to_the_child_and_nothing_stays(start, home, monkeypatch, number) -> None:
    monkeypatch.setenv("ACME_FILES", "1")
    script = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    with start(*FIRST, *python(script), start_new_session=True) as process:
        assert process.stdout.readline() == b"ready\n"
        assert len(left(home)) == 1
        process.send_signal(number)
        assert process.wait(ENDS) == 42
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    assert left(home) == []


def test_what_a_killed_one_left_is_swept_by_the_next_once_its_child_has_ended(start, run, home, monkeypatch) -> None:
    monkeypatch.setenv("ACME_FILES", "1")
    with start(*FIRST, *python("print('ready', flush=True); input()"), stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        (folder,) = left(home)
        process.kill()
        process.wait(ENDS)
        assert run(*FIRST, "--", "true")[0] == 0
        assert left(home) == [folder], "its child lives, and may need the file"
        process.stdin.close()
        process.stdout.read()  # until the child has ended
    assert run(*FIRST, "--", "true")[0] == 0
    assert left(home) == []


def test_a_terminal_stays_a_terminal_and_its_interruption_comes_once(start) -> None:
    script = (
        "import os, signal, sys, time\n"
        "count = []\n"
        "signal.signal(signal.SIGINT, lambda *_: count.append(1))\n"
        "print(*map(os.isatty, range(3)), os.environ['ACME_PASSWORD'], flush=True)\n"
        "end = time.monotonic() + 30\n"
        "while not count and time.monotonic() < end: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "print('interrupted', len(count), flush=True)\n"
    )
    ours, theirs = pty.openpty()
    command = f"import os, pty; pty.spawn({[sys.executable, '-m', 'mooring', 'exec', *FIRST, *python(script)]!r})"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        while b"True True True" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, b"\x03")
        while b"interrupted" not in shown or not shown.endswith(b"\n"):
            shown += os.read(ours, 1000)
        assert process.wait(ENDS) == 0
    os.close(ours)
    assert SECRET.encode() in shown, "a person at a terminal may see it"
    assert b"interrupted 1" in shown


def test_secrets_are_masked_where_nobody_looks_on(run) -> None:
    script = 'echo out $ACME_PASSWORD; echo err $ACME_PASSWORD >&2; printf %s "$ACME_PASSWORD" | base64; echo robot'
    code, out, err = run(*FIRST, "--", "sh", "-c", script)
    assert (code, err) == (0, "err ********\n")
    assert SECRET not in out
    assert out.splitlines()[0] == "out ********"
    assert out.splitlines()[1].startswith("********")
    assert out.splitlines()[2] == "robot"
    assert run(*FIRST, "--no-mask", "--", "sh", "-c", "echo $ACME_PASSWORD") == (0, f"{SECRET}\n", "")


def test_a_secret_that_is_written_in_pieces_is_masked(run) -> None:
    script = (
        "import os, sys, time\n"
        "for one in 'before ' + os.environ['ACME_PASSWORD'] + ' after':\n"
        "    sys.stdout.write(one); sys.stdout.flush(); time.sleep(0.005)\n"
    )
    assert run(*FIRST, *python(script)) == (0, "before ******** after", "")


def test_a_short_secret_is_not_looked_for(run, monkeypatch) -> None:
    monkeypatch.setenv("ACME_GIVES", "s3cr3t7")
    assert run(*FIRST, "--", "sh", "-c", "echo $ACME_PASSWORD") == (0, "s3cr3t7\n", "")


def test_the_order_of_stdout_and_stderr_in_one_pipe_is_kept(run) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do echo out $i; echo err $i >&2; done"
    code, out, _ = run(*FIRST, "--", "sh", "-c", script, stderr=subprocess.STDOUT)
    assert (code, out.split("\n")[:-1]) == (0, [f"{to} {n}" for n in range(1, 9) for to in ("out", "err")])


def test_much_output_that_is_not_text_passes_whole(run, start) -> None:
    script = "import os, sys; sys.stdout.buffer.write(bytes(range(256)) * 40_000)"
    with start(*FIRST, *python(script)) as process:
        out, _ = process.communicate(timeout=ENDS)
    assert out == bytes(range(256)) * 40_000


def test_a_reader_that_goes_ends_the_child_as_in_any_pipe(start) -> None:
    with start(*FIRST, "--", "sh", "-c", "while echo more; do :; done") as process:
        assert process.stdout.read(4) == b"more"
        process.stdout.close()
        assert process.wait(ENDS) != 0


def test_a_pipe_that_does_not_wait_gets_all_of_it(start) -> None:
    """Whoever started us may have made it so, as event loops do."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with start(*FIRST, *python("print('line\\n' * 200_000, end='')"), stdout=writing) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as source:
            assert source.read(4) == b"line"
            while waiting(reading) < FULL:
                assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):  # long enough to find it full, and to do what is wrong then
                process.wait(0.5)
            assert len(source.read()) == 5 * 200_000 - 4
        assert process.wait(ENDS) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("number", [1, 2])
def test_output_that_cannot_be_written_is_told(start, number) -> None:
    with Path("/dev/full").open("wb") as full:
        streams = {"stdout": full} if number == 1 else {"stderr": full}
        with start(*FIRST, "--", "sh", "-c", f"echo hi >&{number}", **streams) as process:
            _, err = process.communicate(timeout=ENDS)
    assert process.returncode == 1
    if number == 1:
        assert err == b"Error: the command's output cannot be written: No space left on device\n"


def test_the_master_key_is_not_the_childs(run, home) -> None:
    (key,) = (line for line in (home / "master.key").read_text().splitlines() if ":" in line and line[0] != "#")
    environment = os.environ | {"MOORING_MASTER_KEY": key}
    code, out, err = run(*FIRST, *python("import os; print(sorted(os.environ))"), env=environment)
    assert (code, err) == (0, "")
    assert "MOORING_HOME" in out
    assert "MOORING_MASTER_KEY" not in out


def test_what_is_not_its_own_is_never_swept(run, home, monkeypatch) -> None:
    monkeypatch.setenv("ACME_FILES", "1")
    theirs = home / "run" / "exp1" / "model.bin"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("weights")
    assert run(*FIRST, "--", "true")[0] == 0
    assert theirs.read_text() == "weights"


def test_a_place_that_leads_elsewhere_is_refused(run, home, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACME_FILES", "1")
    (tmp_path / "elsewhere").mkdir()
    (home / "run").symlink_to(tmp_path / "elsewhere")
    code, _, err = run(*FIRST, "--", "true")
    assert code == 2
    assert err.startswith(f"Error: no private folder can be made in {home / 'run'}: ")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_input_and_descriptors_are_the_childs(run, tmp_path) -> None:
    (tmp_path / "in").write_text("typed\n")
    reading, writing = os.pipe()
    script = "import os, sys; print(input()); os.write(int(sys.argv[1]), b'beside')"
    with (tmp_path / "in").open() as source:
        code, out, _ = run(*FIRST, *python(script, str(writing)), stdin=source, pass_fds=[writing])
    os.close(writing)
    assert (code, out, os.read(reading, 100)) == (0, "typed\n", b"beside")
    os.close(reading)


def test_several_connectors_each_with_its_options(cli, registered, run) -> None:
    cli("connector", "register", "two", "-t", "acme", "-a", "key", "--token", "-", "--no-verify", input="t2\n")
    assert run(*FIRST, "two", "-r", "acme-account", "--", "true") == (0, "", ""), "they say the same"
    for refused in (("two", "--access", "own"), ("two", "-r", "nope"), ("two", "nobody")):
        assert run(*FIRST, *refused, "--", "true")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((*FIRST,), 2, "write the command after --"),
        ((*FIRST, "--"), 2, "write the command after --"),
        (("--", "true"), 2, "Missing argument CONNECTOR"),
        (("nobody", "--", "true"), 2, "no connector is named 'nobody'"),
        (("one", "--access", "own", "--", "true"), 2, "--access"),
        (("one", "--nope", "--", "true"), 2, "--nope"),
        (("one", "--", "true"), 2, "reaches several resource types"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_run(cli, registered, arguments, code, says) -> None:
    result = cli("exec", *arguments, code=code)
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr


def test_two_connectors_that_want_the_same_variable_are_refused() -> None:
    import mooring as m
    from mooring.cli._exec import merged

    one = m.Environment(variables={"A": "1", "B": m.Secret("x"), "C": None})
    other = m.Environment(variables={"A": None, "B": m.Secret("x"), "C": "3"})
    assert merged([one, other]).variables == {"A": "1", "B": m.Secret("x"), "C": "3"}
    assert merged([other, one]).variables == {"A": "1", "B": m.Secret("x"), "C": "3"}
    with pytest.raises(m.InvalidConfig, match="set B; a program can have one"):
        merged([one, m.Environment(variables={"B": m.Secret("y")})])
    file = m.EnvironmentFile(variable="B", name="b", content=m.Secret("y"))
    with pytest.raises(m.InvalidConfig, match="set B; a program can have one"):
        merged([one, m.Environment(variables={}, files=(file,))])
    with pytest.raises(m.InvalidConfig, match="set B; a program can have one"):
        merged([m.Environment(variables={}, files=(file,))] * 2)


def test_refreshed_credentials_are_asked_for_and_masked(run, monkeypatch) -> None:
    script = (
        "import os, urllib.request as u\n"
        "request = u.Request(os.environ['ACME_URL'], headers={'Authorization': os.environ['ACME_ASK_WITH']})\n"
        "got = u.build_opener(u.ProxyHandler({})).open(request).read().decode()\n"
        "print('ACME_PASSWORD' in os.environ, got, got[::-1], os.environ['ACME_ASK_WITH'])\n"
    )
    code, out, err = run(*FIRST, "--refresh", *python(script))
    assert (code, out, err) == (0, f"False ******** {SECRET[::-1]} ********\n", "")


def test_it_ends_quickly_when_the_command_does(run) -> None:
    began = time.monotonic()
    assert run(*FIRST, "--refresh", "--", "true")[0] == 0
    assert time.monotonic() - began < ENDS / 2


@pytest.mark.parametrize(
    ("variables", "files"),
    [
        ({"A B": "1"}, ()),
        ({"A=B": "1"}, ()),
        ({"": "1"}, ()),
        ({"A": "1\0"}, ()),
        ({"A": "1"}, (("A", "f"),)),
        ({}, (("A", "../f"),)),
        ({}, (("A", ".."),)),
        ({}, (("A", "/f"),)),
        ({}, (("A", "a//f"),)),
        ({}, (("A", "a/../f"),)),
        ({}, (("A", "a/"),)),
        ({}, (("A", "f"), ("B", "f"))),
        ({}, (("A", "f"), ("B", "f/g/h"))),
    ],
)
def test_what_no_process_can_have_is_the_plugins_fault(variables, files) -> None:
    import mooring as m
    from mooring.cli._environment import sound
    from mooring.registry import bind
    from mooring.testing import powered

    made = tuple(m.EnvironmentFile(variable=one, name=name, content=m.Secret("x")) for one, name in files)
    with pytest.raises(m.BrokenPlugin, match="names variables or files that no process can have"):
        sound(bind(powered), m.Environment(variables=variables, files=made))


FOLLOWS = """
import os, subprocess, sys
from urllib.request import ProxyHandler, Request, build_opener
request = Request(os.environ["ACME_URL"], headers={"Authorization": os.environ["ACME_ASK_WITH"]})
build_opener(ProxyHandler({})).open(request).read()
command = [sys.executable, "-m", "mooring", "events", "--follow", "--after", "0", "-o", "json"]
with subprocess.Popen([*command, "-t", "CredentialsRefreshed"], stdout=subprocess.PIPE, text=True) as following:
    print(following.stdout.readline(), end="")
    following.terminate()
"""


def test_with_refresh_what_is_in_use_is_renewed_while_the_command_runs(process, registered, monkeypatch) -> None:
    monkeypatch.setenv("ACME_LIFE", "6")
    command = ("exec", "--refresh", "one", "-r", "acme-bucket", "-i", "first", "--", sys.executable, "-c", FOLLOWS)
    assert '"event":"CredentialsRefreshed"' in process(*command).stdout
