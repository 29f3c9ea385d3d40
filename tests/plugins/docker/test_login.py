"""Ways out: the formats, the entry in docker's and podman's files, and the helper, by the real clients."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import mooring as m
from mooring_docker import RegistryToken, connector, files

BIN = Path(sys.executable).parent
HELPER = BIN / "docker-credential-mooring"
CANARY = "cAnArY-2b77"
HOST = "r.org:5000"


def credentials(host: str = HOST, password: str = CANARY) -> m.RegistryLogin:
    return m.RegistryLogin(
        registry=host, username="alice", password=m.Secret(password), expires_at=None, narrowed=False
    )


TOKEN = RegistryToken(registry=HOST, repository="app", token=m.Secret(CANARY), expires_at=None, narrowed=True)


def rendered(what: m.Credentials, form: str) -> Any:
    return json.loads(connector.render(m.RenderRequest(credentials=what, format=form)))


def test_docker_config() -> None:
    assert rendered(credentials("docker.io", "pw"), "docker-config") == {
        "auths": {"https://index.docker.io/v1/": {"auth": "YWxpY2U6cHc="}}
    }
    assert rendered(TOKEN, "docker-config") == {"auths": {HOST: {"registrytoken": CANARY}}}


def test_docker_credential() -> None:
    assert rendered(credentials(), "docker-credential") == {"ServerURL": HOST, "Username": "alice", "Secret": CANARY}
    with pytest.raises(m.UnsupportedResource, match="issue for the whole registry"):
        rendered(TOKEN, "docker-credential")


def test_what_is_rendered_is_named() -> None:
    with pytest.raises(m.InvalidConfig, match="docker-config, docker-credential"):
        rendered(credentials(), "env")
    with pytest.raises(m.UnsupportedResource):
        rendered(m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True), "docker-config")


def test_the_environment_of_a_program() -> None:
    docker, containers = connector.environment(credentials()).files

    assert (docker.variable, docker.name, docker.folder) == ("DOCKER_CONFIG", "docker/config.json", True)
    assert (containers.variable, containers.folder) == ("REGISTRY_AUTH_FILE", False)
    assert json.loads(docker.content.reveal()) == json.loads(containers.content.reveal())


def test_skopeo_takes_the_environment(htpasswd: Any, skopeo: Any, push: Any, tmp_path: Path) -> None:
    assert push(f"{htpasswd.host}/team/app:v1", "--dest-creds=alice:pw-alice").returncode == 0
    _, file = connector.environment(credentials(htpasswd.host, "pw-alice")).files
    path = tmp_path / file.name
    path.write_text(file.content.reveal())

    got = skopeo("list-tags", "--tls-verify=false", f"docker://{htpasswd.host}/team/app", **{file.variable: str(path)})

    assert got.returncode == 0, got.stderr


def inspected(reference: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """What the docker CLI asks of a registry without an engine."""
    if shutil.which("docker") is None:
        pytest.skip("no docker CLI on the PATH; run: apt-get install docker.io")
    return subprocess.run(
        ["docker", "manifest", "inspect", "--insecure", reference],
        capture_output=True,
        timeout=60,
        env=os.environ | variables,
        check=False,
    )


def test_the_docker_cli_takes_a_token_for_one_repository(
    token_registry: Any, tokens: Any, push: Any, tmp_path: Path
) -> None:
    host = token_registry.host
    for name in ("team/app", "team/other"):
        assert push(f"{host}/{name}:v1", "--dest-creds=alice:pw-alice").returncode == 0
    text = tokens.token("alice", ["repository:team/app:pull"])
    token = RegistryToken(registry=host, repository="team/app", token=m.Secret(text), expires_at=None, narrowed=True)
    file, _ = connector.environment(token).files
    path = tmp_path / file.name
    path.parent.mkdir()
    path.write_text(file.content.reveal())

    assert inspected(f"{host}/team/app:v1", DOCKER_CONFIG=str(path.parent)).returncode == 0
    assert inspected(f"{host}/team/other:v1", DOCKER_CONFIG=str(path.parent)).returncode != 0


Ways = Callable[..., m.LoginRequest]


@pytest.fixture
def wanted(machine: Path) -> Ways:
    """What `mooring login` would ask for."""

    def made(what: m.Credentials | None = None, **fields: Any) -> m.LoginRequest:
        values: dict[str, Any] = {
            "credentials": what or credentials(),
            "connector": "mine",
            "resource_type": "docker-registry",
            "resource_id": HOST,
            "access": "read",
            "command": ("mooring", "issue", "mine"),
            "folder": machine / "mooring" / "logins" / "docker",
        }
        return m.LoginRequest(**(values | fields))

    return made


@pytest.fixture
def unwanted(machine: Path) -> Callable[..., m.LogoutRequest]:
    def made(**fields: Any) -> m.LogoutRequest:
        values = {"connector": "mine", "resource_type": None, "resource_id": None}
        return m.LogoutRequest(**(values | {"folder": machine / "mooring" / "logins" / "docker"} | fields))

    return made


OTHERS = '{"auths": {"s.org": {"auth": "eDp5"}}, "credHelpers": {"z.org": "pass"}, "psFormat": "é <x>", "n": 1.50}'


def docker_file(machine: Path, content: str | None = None) -> Path:
    path = machine / ".docker" / "config.json"
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return path


def test_an_entry_comes_and_goes_and_all_else_stays(machine: Path, wanted: Ways, unwanted: Any) -> None:
    path = docker_file(machine, OTHERS)
    path.chmod(0o640)
    before = json.loads(OTHERS)

    change = connector.login(wanted())

    after = json.loads(path.read_text())
    assert change.entries == (HOST,)
    assert after["credHelpers"] == {"z.org": "pass", HOST: "mooring"}
    assert {**after, "credHelpers": 0} == {**before, "credHelpers": 0}
    assert list(after) == list(before)
    assert path.stat().st_mode & 0o777 == 0o640
    assert change.backup is not None
    assert Path(change.backup).read_text() == OTHERS
    assert Path(change.backup).stat().st_mode & 0o777 == 0o600
    assert connector.login(wanted()).entries == ()
    assert connector.logout(unwanted()).entries == (HOST,)
    assert json.loads(path.read_text()) == before
    assert connector.logout(unwanted()).entries == ()


def test_a_file_of_its_own_without_a_secret(machine: Path, wanted: Ways, unwanted: Any) -> None:
    change = connector.login(wanted())

    path = docker_file(machine)
    assert (change.file, change.backup) == (str(path), None)
    assert path.stat().st_mode & 0o777 == 0o600
    for file in machine.rglob("*"):
        assert file.is_dir() or CANARY not in file.read_text()
    connector.logout(unwanted())
    assert json.loads(path.read_text()) == {}


def test_docker_hub_has_two_names(machine: Path, wanted: Ways, unwanted: Any) -> None:
    names = ("https://index.docker.io/v1/", "docker.io")

    assert connector.login(wanted(credentials("docker.io"), resource_id="docker.io")).entries == names
    assert connector.logout(unwanted()).entries == names


def test_several_files_and_several_connectors(machine: Path, wanted: Ways, unwanted: Any, tmp_path: Path) -> None:
    other = tmp_path / "auth.json"
    connector.login(wanted())
    connector.login(wanted(file=other))
    connector.login(wanted(credentials("s.org"), connector="other", resource_id="s.org"))
    with pytest.raises(m.InvalidConfig, match="come from the connector 'mine'"):
        connector.login(wanted(connector="other"))

    assert connector.logout(unwanted(resource_id="t.org")).entries == ()
    assert connector.logout(unwanted(file=other)).entries == (HOST,)
    assert json.loads(docker_file(machine).read_text())["credHelpers"] == {HOST: "mooring", "s.org": "mooring"}
    assert connector.logout(unwanted()).entries == (HOST,)
    assert json.loads(docker_file(machine).read_text())["credHelpers"] == {"s.org": "mooring"}


def test_an_older_login_is_told_of_and_left(machine: Path, wanted: Ways) -> None:
    path = docker_file(machine, json.dumps({"auths": {HOST: {"auth": "eDp5"}}}))

    note, *_ = connector.login(wanted()).notes

    assert "older login" in note
    assert json.loads(path.read_text())["auths"] == {HOST: {"auth": "eDp5"}}


def test_a_helper_that_docker_would_not_find_is_told_of(wanted: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(BIN))
    assert connector.login(wanted()).notes == ()
    monkeypatch.setenv("PATH", "/nonexistent")
    (note,) = connector.login(wanted()).notes
    assert note.startswith("docker-credential-mooring is not on the PATH")


REFUSED = {
    "broken": ('{"auths": ' + CANARY, "is broken"),
    "no object": ("[]", "is broken"),
    "no table": ('{"credHelpers": []}', "credHelpers are no JSON object"),
    "another helper": (json.dumps({"credHelpers": {HOST: "pass"}}), "another credential helper"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_take_it_stays_as_it_is(machine: Path, wanted: Ways, content: str, said: str) -> None:
    path = docker_file(machine, content)
    with pytest.raises(m.InvalidConfig, match=said) as caught:
        connector.login(wanted())

    assert path.read_text() == content
    assert [file.name for file in path.parent.iterdir()] == ["config.json"]
    assert json.loads((machine / "mooring" / "logins" / "docker" / "docker.json").read_text()) == {}
    assert CANARY not in str(caught.value)


def test_a_file_that_may_not_be_written(machine: Path, wanted: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    path = docker_file(machine, "{}")
    path.chmod(0o400)
    monkeypatch.setattr(os, "access", lambda file, _: Path(file) != path)  # (root may write everything)
    with pytest.raises(m.InvalidConfig, match="cannot be written"):
        connector.login(wanted())

    assert path.read_text() == "{}"


def test_a_file_that_another_program_changes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")

    def slow(values: dict[str, Any]) -> bool:
        values["ours"] = 1
        path.write_text('{"theirs": 1}')
        return True

    with pytest.raises(m.InvalidConfig, match="changed by another program meanwhile"):
        files.change(path, slow)

    assert path.read_text() == '{"theirs": 1}'
    assert not list(tmp_path.glob(".config.json*"))


def test_a_link_stays_a_link(machine: Path, wanted: Ways, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    docker_file(machine, "").unlink()
    docker_file(machine).symlink_to(real)

    connector.login(wanted())

    assert docker_file(machine).is_symlink()
    assert json.loads(real.read_text())["credHelpers"] == {HOST: "mooring"}


def test_a_table_of_nothing(machine: Path, wanted: Ways) -> None:
    path = docker_file(machine, '{"credHelpers": null, "auths": null}')
    assert connector.login(wanted()).entries == (HOST,)
    assert json.loads(path.read_text()) == {"credHelpers": {HOST: "mooring"}, "auths": None}


def test_a_link_that_leads_to_itself(machine: Path, wanted: Ways) -> None:
    docker_file(machine, "").unlink()
    docker_file(machine).symlink_to(docker_file(machine))
    with pytest.raises(m.InvalidConfig, match="cannot be read"):
        connector.login(wanted())


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(machine: Path, wanted: Ways) -> None:
    docker_file(machine, "").unlink()
    os.mkfifo(docker_file(machine))
    with pytest.raises(m.InvalidConfig, match="is no regular file"):
        connector.login(wanted())


def test_a_file_that_is_too_long(machine: Path, wanted: Ways) -> None:
    content = json.dumps({"auths": {f"r{number}.org": {"auth": "eDp5" * 20} for number in range(50_000)}})
    path = docker_file(machine, content)
    with pytest.raises(m.InvalidConfig, match="longer than 4 MiB"):
        connector.login(wanted())
    assert path.read_text() == content


@pytest.mark.parametrize("content", [b"", b" \n", b'\xef\xbb\xbf{"n": 1}', '{"n": "é"}'.encode("utf-16")])
def test_a_file_that_is_empty_or_begins_with_a_mark(machine: Path, wanted: Ways, content: bytes) -> None:
    path = docker_file(machine, "")
    path.write_bytes(content)
    change = connector.login(wanted())

    after = json.loads(path.read_text(encoding="utf-8"))
    assert after.pop("credHelpers") == {HOST: "mooring"}
    assert list(after) == (["n"] if b"n" in content else [])
    assert Path(change.backup or path).read_bytes() == (content or path.read_bytes())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_a_file_keeps_its_owner(machine: Path, wanted: Ways) -> None:
    path = docker_file(machine, "{}")
    os.chown(path, 4711, 4712)

    change = connector.login(wanted())

    for file in (path, Path(change.backup or "")):
        assert (file.stat().st_uid, file.stat().st_gid) == (4711, 4712)


def test_no_name_but_the_registrys(wanted: Ways, machine: Path) -> None:
    with pytest.raises(m.InvalidConfig, match="leave out --name"):
        connector.login(wanted(name="mine"))
    assert not docker_file(machine).exists()


def test_many_logins_and_logouts_at_once(machine: Path, wanted: Ways, unwanted: Any) -> None:
    """Each reads both files, and then writes them."""
    hosts = [f"r{number}.org" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda host: connector.login(wanted(credentials(host), resource_id=host)), hosts))
        assert [one.entries for one in done] == [(host,) for host in hosts]
        assert sorted(json.loads(docker_file(machine).read_text())["credHelpers"]) == hosts
        assert sorted(json.loads(called("list").stdout)) == hosts
        gone = list(pool.map(lambda host: connector.logout(unwanted(resource_id=host)), hosts))
    assert [one.entries for one in gone] == [(host,) for host in hosts]
    assert json.loads(docker_file(machine).read_text()) == {}


def test_a_token_for_one_repository_is_no_login(machine: Path, wanted: Ways) -> None:
    with pytest.raises(m.UnsupportedResource):
        connector.login(wanted(TOKEN))
    assert not docker_file(machine).exists()


# The helper


def called(verb: str, given: str | bytes = "", **variables: str) -> subprocess.CompletedProcess[str]:
    request = given.encode() if isinstance(given, str) else given
    done = subprocess.run(
        [str(HELPER), *verb.split()], input=request, capture_output=True, timeout=60, env=os.environ | variables,
        check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def answering(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """A command that does what a line of Python says, whatever the plugin appends."""

    def made(code: str) -> tuple[str, ...]:
        return (sys.executable, "-c", f"import sys, time; {code}")

    return made


def test_get_asks_mooring(wanted: Ways, answering: Any) -> None:
    answer = json.dumps({"ServerURL": HOST, "Username": "alice", "Secret": CANARY})
    connector.login(
        wanted(command=answering(f"assert sys.argv[1:] == ['--format', 'docker-credential']; print({answer!r})"))
    )

    for server in (HOST, f"https://{HOST}", f"https://{HOST}/v2/\n"):
        got = called("get", server)
        assert (got.returncode, got.stderr) == (0, "")
        assert json.loads(got.stdout) == {"ServerURL": server.strip(), "Username": "alice", "Secret": CANARY}


def test_list_and_erase_and_store(wanted: Ways) -> None:
    assert called("list").stdout == "{}\n"
    connector.login(wanted())
    connector.login(wanted(credentials("docker.io")))

    assert json.loads(called("list").stdout) == {HOST: "alice", "https://index.docker.io/v1/": "alice"}
    erased = called("erase", HOST)
    assert (erased.returncode, erased.stdout) == (0, "")
    assert "mooring logout" in erased.stderr
    assert called("erase", "s.org").stderr == ""
    stored = called("store", json.dumps({"ServerURL": HOST, "Username": "x", "Secret": CANARY}))
    assert stored.returncode == 1
    assert "stores none" in stored.stdout
    assert CANARY not in stored.stdout + stored.stderr
    assert json.loads(called("list").stdout)[HOST] == "alice"


NOT_FOUND = "credentials not found in native keychain\n"

UNSERVED: list[tuple[str, str | bytes, str]] = [
    ("get", "s.org", NOT_FOUND),
    ("get", "not a host", NOT_FOUND),
    ("get", "", "no credentials server URL\n"),
    ("get", b"\xff", "no credentials server URL\n"),
    ("get", b"a" * 70_000, "no credentials server URL\n"),
]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("get <&-", "no credentials server URL"),
        ("list >&-", "mooring: the answer cannot be written (Bad file descriptor)"),
        ("list 2>&1 1>/dev/full", "mooring: the answer cannot be written (No space left on device)"),
        ("list >&- 2>&-", ""),
    ],
)
def test_nobody_who_listens(words: str, said: str) -> None:
    done = subprocess.run(["sh", "-c", f"{HELPER} {words}"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, (done.stdout + done.stderr).strip()) == (1, said)


def test_a_home_of_nobody() -> None:
    got = called("get", HOST, MOORING_HOME="~nobody-there/x")
    assert (got.returncode, got.stderr) == (1, "")
    assert "write its path out" in got.stdout


def test_it_is_interrupted(wanted: Ways, answering: Any, machine: Path) -> None:
    pipe = machine / "pipe"
    os.mkfifo(pipe)
    connector.login(wanted(command=answering(f"open({str(pipe)!r}, 'w').close(); time.sleep(60)")))
    with subprocess.Popen(
        [HELPER, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(HOST.encode())
        process.stdin.close()
        pipe.read_text()  # until the other side has begun
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


@pytest.mark.parametrize(("verb", "given", "said"), UNSERVED)
def test_what_the_protocol_says_where_there_is_none(verb: str, given: str | bytes, said: str) -> None:
    got = called(verb, given)
    assert (got.returncode, got.stdout, got.stderr) == (1, said, "")


@pytest.mark.parametrize("verb", ["", "version", "get get"])
def test_other_words_are_answered_with_the_usage(verb: str) -> None:
    got = called(verb)
    assert got.returncode == 1
    assert got.stdout.startswith("usage: docker-credential-mooring {get|store|erase|list}")


FAILING = {
    "fails": ("sys.exit('error: the vendor is away')", "error: the vendor is away"),
    "is silent": ("sys.exit(3)", r"mooring failed \(3\)"),
    "prints garbage": (f"print('{CANARY}')", "answered what is no login"),
    "prints another shape": (f"print('[\"{CANARY}\"]')", "answered what is no login"),
}


@pytest.mark.parametrize(("code", "said"), FAILING.values(), ids=FAILING)
def test_a_mooring_that_fails(wanted: Ways, answering: Any, code: str, said: str) -> None:
    connector.login(wanted(command=answering(code)))

    got = called("get", HOST)

    assert got.returncode == 1
    assert re.search(said, got.stdout)
    assert CANARY not in got.stdout
    assert "Traceback" not in got.stdout + got.stderr


def test_a_mooring_that_is_gone(wanted: Ways) -> None:
    connector.login(wanted(command=("/nowhere/mooring",)))
    assert "is gone" in called("get", HOST).stdout


def test_a_broken_memory(wanted: Ways, machine: Path) -> None:
    connector.login(wanted())
    (machine / "mooring" / "logins" / "docker" / "docker.json").write_text("{")
    got = called("get", HOST)
    assert got.returncode == 1
    assert "is broken" in got.stdout
    assert got.stderr == ""


@pytest.fixture
def logged_in(htpasswd: Any, mooring: Any, push: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry that mooring logs in to, by its own CLI; gives the repository."""
    assert push(f"{htpasswd.host}/team/app:v1", "--dest-creds=alice:pw-alice").returncode == 0
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    register(mooring, htpasswd)
    mooring("login", "mine", "-r", "docker-registry", "-i", htpasswd.host)
    return f"{htpasswd.host}/team/app"


def register(mooring: Any, registry: Any) -> None:
    """The connector `mine`, by its password."""
    mooring(
        "connector", "register", "mine", "--type", "docker", "--auth-method", "password", f"--registry={registry.url}",
        "--username=alice", "--password", "-", "--allow-unnarrowed", "--allow-long-lived", given="pw-alice\n",
    )  # fmt: skip


def test_skopeo_logs_in_by_mooring(logged_in: str, skopeo: Any, machine: Path) -> None:
    got = skopeo("list-tags", "--tls-verify=false", f"docker://{logged_in}")

    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)["Tags"] == ["v1"]
    assert "pw-alice" not in docker_file(machine).read_text()


def test_a_login_is_for_the_registry_unless_another_resource_is_named(htpasswd: Any, mooring: Any) -> None:
    register(mooring, htpasswd)
    assert mooring("login", "mine").stderr.startswith(f"Wrote {htpasswd.host} to ")
    assert "reaches several resources" in mooring("issue", "mine", code=2).stderr
    assert mooring("logout", "mine", "-i", htpasswd.host).stderr.startswith(f"Removed {htpasswd.host} from ")


def test_what_was_before_mooring_is_kept_through_later_logins(htpasswd: Any, mooring: Any, machine: Path) -> None:
    register(mooring, htpasswd)
    file = docker_file(machine, '{"n": 1}')
    kept = file.with_name("config.json.before-mooring")
    assert str(kept) in mooring("login", "mine").stderr
    written = file.read_text()
    file.write_text(written.replace('"n": 1', '"n": 2'))
    assert str(kept) not in mooring("logout", "mine").stderr
    assert kept.read_text() == '{"n": 1}'
    assert json.loads(file.read_text())["n"] == 2
    assert str(kept) in mooring("login", "mine").stderr
    assert json.loads(kept.read_text())["n"] == 2


def test_a_login_that_would_be_refused_is_told_of_at_registration(htpasswd: Any, mooring: Any) -> None:
    fields = ("--type=docker", "--auth-method=password", f"--registry={htpasswd.url}", "--username=alice")
    said = mooring("connector", "register", "shy", *fields, "--password", "-", given="pw-alice\n").stderr
    note, done = said.splitlines()[:2]
    assert note.startswith("Note: as it is, issuing would be refused: ")
    assert note.endswith(" mooring connector update shy --allow-unnarrowed --allow-long-lived.")
    assert done == "Registered the connector 'shy'; it reaches:"
    allowed = ("--allow-unnarrowed", "--allow-long-lived")
    assert (
        "Note"
        not in mooring("connector", "register", "free", *fields, *allowed, "--password=-", given="pw-alice\n").stderr
    )


def test_the_helper_finds_what_the_cli_wrote(
    htpasswd: Any, mooring: Any, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the home that a user has, too."""
    for home in (None, str(machine / "elsewhere")):
        monkeypatch.delenv("MOORING_HOME", raising=False)
        if home:
            monkeypatch.setenv("MOORING_HOME", home)
        register(mooring, htpasswd)
        mooring("login", "mine", "-r", "docker-registry", "-i", htpasswd.host)
        got = json.loads(called("get", htpasswd.host).stdout)
        assert got == {"ServerURL": htpasswd.host, "Username": "alice", "Secret": "pw-alice"}
        assert json.loads(called("list").stdout) == {htpasswd.host: "alice"}
        again = mooring("login", "mine", "-r", "docker-registry", "-i", htpasswd.host)
        assert again.stderr.startswith(f"{docker_file(machine)} has the entry already.\n")
        mooring("logout", "mine")
        assert called("get", htpasswd.host).stdout == NOT_FOUND


def test_what_modes_forbid_is_said_and_changes_nothing(
    htpasswd: Any, mooring: Any, machine: Path, powerless: Any
) -> None:
    register(mooring, htpasswd)
    login = ("login", "mine", "-r", "docker-registry", "-i", htpasswd.host)
    path = docker_file(machine, '{"n": 1}')
    memory = machine / "mooring" / "logins" / "docker"
    memory.mkdir(parents=True)
    forbidden = [(path, 0o400, "written"), (path, 0o000, "read"), (path.parent, 0o500, "written"),
                 (memory, 0o500, "written"), (memory, 0o000, "used")]  # fmt: skip
    for place, mode, what in forbidden:
        before = place.stat().st_mode
        place.chmod(mode)
        refused = mooring(*login, code=2, before=powerless)
        place.chmod(before)
        assert re.fullmatch(rf"Error: .* cannot be {what} \(Permission denied\).*\n", refused.stderr), refused.stderr
        assert path.read_text() == '{"n": 1}'
        assert sorted(file.name for file in path.parent.iterdir()) == ["config.json"]
        assert called("list").stdout == "{}\n"
    mooring(*login, before=powerless)
    memory.chmod(0)
    assert "cannot be used" in mooring("logout", "mine", code=2, before=powerless).stderr
    memory.chmod(0o700)
    assert json.loads(path.read_text())["credHelpers"] == {htpasswd.host: "mooring"}


def test_exec_gives_docker_its_folder_and_hides_what_is_in_it(htpasswd: Any, mooring: Any, machine: Path) -> None:
    register(mooring, htpasswd)
    script = (
        'stat -c "%a %F" "$DOCKER_CONFIG" "$DOCKER_CONFIG"/* "$REGISTRY_AUTH_FILE"; cat "$DOCKER_CONFIG"/config.json'
    )
    said = mooring("exec", "mine", "-r", "docker-registry", "-i", htpasswd.host, "--", "sh", "-c", script).stdout

    assert said.splitlines()[:3] == ["700 directory", "600 regular file", "600 regular file"]
    assert htpasswd.host in said
    coded = base64.b64encode(b"alice:pw-alice").decode()
    assert not any(coded[start : start + 8] in said for start in range(6, len(coded) - 8))
    assert list((machine / "mooring" / "run").iterdir()) == []


def test_exec_logs_the_docker_cli_and_skopeo_in(htpasswd: Any, mooring: Any, push: Any, skopeo_program: Any) -> None:
    repository = f"{htpasswd.host}/team/app"
    assert push(f"{repository}:v1", "--dest-creds=alice:pw-alice").returncode == 0
    register(mooring, htpasswd)
    named = ("exec", "mine", "-r", "docker-registry", "-i", htpasswd.host, "--")
    command, needed = skopeo_program

    tags = mooring(*named, command, "list-tags", "--tls-verify=false", f"docker://{repository}", **needed)

    assert json.loads(tags.stdout)["Tags"] == ["v1"]
    if shutil.which("docker"):
        mooring(*named, "docker", "manifest", "inspect", "--insecure", f"{repository}:v1")


def test_skopeo_by_an_auth_file(logged_in: str, skopeo: Any, mooring: Any, tmp_path: Path, machine: Path) -> None:
    auth = tmp_path / "auth.json"
    host = logged_in.partition("/")[0]
    mooring("login", "mine", "-r", "docker-registry", "-i", host, "--file", str(auth))
    docker_file(machine).unlink()

    got = skopeo("list-tags", "--tls-verify=false", f"docker://{logged_in}", REGISTRY_AUTH_FILE=str(auth))

    assert got.returncode == 0, got.stderr


def test_the_docker_cli_logs_in_by_mooring(logged_in: str) -> None:
    done = inspected(f"{logged_in}:v1")

    assert done.returncode == 0, done.stderr
    assert "layers" in json.loads(done.stdout)


def test_without_the_entry_the_real_clients_are_refused(logged_in: str, mooring: Any, skopeo: Any) -> None:
    mooring("logout", "mine")

    assert skopeo("list-tags", "--tls-verify=false", f"docker://{logged_in}").returncode != 0


def test_the_helper_starts_fast() -> None:
    """At most five times what its yardstick takes, each the best of five, beside each other."""
    ratios = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import asyncio, click"], check=True)
        between = time.perf_counter()
        assert called("list").returncode == 0
        ratios.append((time.perf_counter() - between) / (between - begun))
    assert min(ratios) <= 5
