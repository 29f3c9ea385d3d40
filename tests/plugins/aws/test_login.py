"""The profile that login writes: read by botocore, removed without a trace, and never in the way of anything else."""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.session
import pytest

import mooring as m
from mooring_aws import AwsCredentials, connector, login

OTHERS = "# mine\r\n[default]\nregion = x\n\n[profile  'my own']\noutput=json ; no newline at the end"
CREDENTIALS = AwsCredentials(
    access_key_id="ASIAEXAMPLE",
    secret_access_key=m.Secret("c4n4ry"),
    session_token=m.Secret("t0k3n"),
    region="eu-west-1",
    endpoint_urls={"default": "http://127.0.0.1:1", "s3": "http://127.0.0.1:2"},
    expires_at=datetime(2026, 1, 2, tzinfo=UTC),
    narrowed=True,
)
COMMAND = ("/opt/a b/mooring", "issue", "prod", "--resource-id", "s3://it's")


@pytest.fixture
def config(machine: Path) -> Path:
    file = machine / ".aws" / "config"
    file.parent.mkdir()
    file.write_bytes(OTHERS.encode())
    file.chmod(0o640)
    return file


def logged_in(machine: Path, name: str | None = None, file: Path | None = None, **more: Any) -> m.LoginChange:
    fields: dict[str, Any] = {"connector": "prod", "resource_type": "s3-bucket", "resource_id": "s3://it's"} | more
    request = m.LoginRequest(
        credentials=CREDENTIALS, access="read", command=COMMAND, folder=machine, name=name, file=file, **fields
    )
    return connector.login(request)


def logged_out(machine: Path, name: str = "prod", file: Path | None = None, **more: Any) -> m.LoginChange:
    fields = {"resource_type": None, "resource_id": None} | more
    return connector.logout(m.LogoutRequest(connector=name, folder=machine, file=file, **fields))


def test_what_was_before_mooring_is_kept_through_later_logins(machine: Path, config: Path) -> None:
    kept, before = config.with_name("config.before-mooring"), config.read_text()
    assert logged_in(machine).backup == str(kept)
    assert logged_in(machine, connector="other").backup is None
    assert logged_out(machine).backup is None
    assert logged_out(machine, "other").backup is None
    assert kept.read_text() == before


def test_botocore_reads_the_profile_beside_the_others(machine: Path, config: Path) -> None:
    change = logged_in(machine)
    assert (change.file, change.entries) == (str(config), ("prod",))
    profiles = botocore.session.Session().full_config["profiles"]
    assert set(profiles) == {"default", "my own", "prod"}
    assert profiles["prod"] == {
        "credential_process": f"{shlex.join(COMMAND)} --format credential-process",
        "region": "eu-west-1",
        "endpoint_url": "http://127.0.0.1:1",
        "services": "prod",
    }
    session = botocore.session.Session(profile="prod")
    assert session.full_config["services"]["prod"] == {"s3": {"endpoint_url": "http://127.0.0.1:2"}}
    text = config.read_text()
    assert config.read_bytes().startswith(OTHERS.encode())
    for secret in ("ASIAEXAMPLE", "c4n4ry", "t0k3n"):
        assert secret not in text
    assert change.backup is not None
    assert Path(change.backup).read_bytes() == OTHERS.encode()
    assert {stat.S_IMODE(one.stat().st_mode) for one in (config, Path(change.backup))} == {0o640}


@pytest.mark.parametrize("before", ["", "\n", OTHERS, f"{OTHERS}\n", f"{OTHERS}\n\n\n", "[a]\r\nb=c\r\n"])
def test_logout_leaves_every_byte_as_it_was(machine: Path, config: Path, before: str) -> None:
    config.write_bytes(before.encode())
    logged_in(machine)
    logged_in(machine, name="again", resource_id="s3://other")
    logged_in(machine, name="b", connector="prod2")
    logged_in(machine)  # once more, in its own place
    assert logged_out(machine, "nobody").entries == ()
    assert set(logged_out(machine).entries) == {"again", "prod"}
    assert logged_out(machine, "prod2").entries == ("b",)
    assert config.read_bytes() == before.encode()
    assert logged_out(machine).entries == ()


def test_logout_of_one_resource(machine: Path, config: Path) -> None:
    logged_in(machine)
    logged_in(machine, name="again", resource_id="s3://other")
    assert logged_out(machine, resource_id="s3://other").entries == ("again",)
    assert logged_out(machine, resource_type="aws-generic").entries == ()
    assert logged_out(machine, resource_type="s3-bucket").entries == ("prod",)


def test_what_was_added_after_the_entry_stays(machine: Path, config: Path) -> None:
    logged_in(machine)
    with config.open("a") as file:
        file.write("[profile later]\nregion = y\n")
    logged_out(machine)
    assert config.read_bytes().decode() == f"{OTHERS}\n[profile later]\nregion = y\n"
    assert "later" in botocore.session.Session().full_config["profiles"]


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = machine / "deep" / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    change = logged_in(machine)
    assert (change.file, change.backup) == (str(file), None)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (file, file.parent)] == [0o600, 0o700]
    logged_in(machine, file=machine / "named")
    assert (machine / "named").read_text() == file.read_text()


def test_a_link_stays_one(machine: Path, config: Path) -> None:
    real = config.rename(machine / "dotfiles")
    config.symlink_to(real)
    logged_in(machine)
    assert config.is_symlink()
    assert "[profile prod]" in real.read_text()


def files(machine: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in machine.rglob("*") if one.is_file()}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("default", "has a profile 'default' already; give another name with --name"),
        ("kept", "has keys of a profile 'kept', which go before"),
        ("a]b", "letters, digits"),
        ("a\nb", "letters, digits"),
    ],
)
def test_a_name_that_cannot_be(machine: Path, config: Path, name: str, says: str) -> None:
    config.with_name("credentials").write_text("[kept]\naws_access_key_id = x\n")
    before = files(machine)
    with pytest.raises(m.InvalidConfig, match=says):
        logged_in(machine, name=name)
    assert files(machine) == before


def test_an_entry_of_another_connector_is_not_replaced(machine: Path, config: Path) -> None:
    logged_in(machine, name="a")
    with pytest.raises(m.InvalidConfig, match="has a profile 'a' already"):
        logged_in(machine, name="a", connector="other")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[broken", "could read; mend it"),
        (b"a = b\n", "could read; mend it"),
        (b"[profile 'x]\n", "could read; mend it"),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_file_that_is_broken_is_not_touched(machine: Path, config: Path, content: bytes, says: str) -> None:
    config.write_bytes(content)
    before = files(machine)
    with pytest.raises(m.InvalidConfig, match=says):
        logged_in(machine)
    assert files(machine) == before


def test_a_file_that_is_read_only_is_not_touched(machine: Path, config: Path) -> None:
    logged_in(machine)
    config.chmod(0o444)
    before = files(machine)
    for call in (logged_in, logged_out):
        with pytest.raises(m.InvalidConfig, match="it is read-only; nothing was changed"):
            call(machine)
    assert files(machine) == before


def test_a_file_that_another_program_changes_meanwhile_is_not_touched(
    machine: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = login._entry

    def meanwhile(*arguments: Any) -> str:
        config.write_text("[default]\n# theirs\n")
        return original(*arguments)

    monkeypatch.setattr(login, "_entry", meanwhile)
    with pytest.raises(m.InvalidConfig, match="was changed by another program meanwhile; try again"):
        logged_in(machine)
    assert config.read_text() == "[default]\n# theirs\n"
    assert not [one for one in config.parent.iterdir() if one.name.startswith(".")]


def test_many_logins_and_logouts_at_once_lose_nothing(machine: Path, config: Path) -> None:
    """Threads stand for processes: the lock is of what each has opened."""
    count = 16
    start = threading.Barrier(count)
    for number in range(count // 2):
        logged_in(machine, connector=f"old{number}")

    def work(number: int) -> None:
        start.wait(60)
        if number % 2:
            logged_out(machine, f"old{number // 2}")
        for again in range(3):
            logged_in(machine, connector=f"new{number}", name=f"new{number}-{again}")

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
    made = {f"new{number}-{again}" for number in range(count) for again in range(3)}
    assert set(botocore.session.Session().full_config["profiles"]) == {"default", "my own"} | made
    assert {one.name for one in config.parent.iterdir()} == {"config", "config.before-mooring"}
    for number in range(count):
        logged_out(machine, f"new{number}")
    assert config.read_bytes() == OTHERS.encode()


def test_another_that_does_not_end_is_told_of(machine: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in(machine)
    before = files(machine)
    monkeypatch.setattr(login, "LOCK_SECONDS", 0)
    held = os.open(config.parent, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        for call in (logged_in, logged_out):
            with pytest.raises(m.InvalidConfig, match=r"another login or logout is at work on .*; nothing was changed"):
                call(machine)
    finally:
        os.close(held)
    assert files(machine) == before
    assert logged_out(machine).entries == ("prod",)


def test_logout_makes_no_folder(machine: Path) -> None:
    assert logged_out(machine).entries == ()
    assert not (machine / ".aws").exists()


def test_an_entry_whose_end_was_removed_is_left_to_its_owner(machine: Path, config: Path) -> None:
    logged_in(machine)
    config.write_text("\n".join(one for one in config.read_text().split("\n") if not one.startswith("# End")))
    before = files(machine)
    with pytest.raises(m.InvalidConfig, match="was changed since; remove it by hand"):
        logged_out(machine)
    assert files(machine) == before


def test_another_kind_of_credentials(machine: Path) -> None:
    request = m.LoginRequest(
        credentials=m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True), connector="c",
        resource_type="t", resource_id=None, access="read", command=(), folder=machine,
    )  # fmt: skip
    with pytest.raises(m.UnsupportedResource):
        connector.login(request)
