"""`mooring vault`: what each command shows, asks and ends in; and that only `export` shows a key."""

import base64
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from mooring.vault import key_file

K1, K2 = "k1:" + "A" * 43 + "=", "k2:" + "E" * 43 + "="
ONE = {"one": "t0ken-registered"}


@pytest.fixture
def ring(home: Path) -> Path:
    return home / "master.key"


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """What the OS keyring holds."""
    kept: dict[tuple[str, str], str] = {}
    backend = SimpleNamespace(
        get_password=lambda *name: kept.get(name),
        set_password=lambda service, name, value: kept.update({(service, name): value}),
        delete_password=lambda *name: kept.pop(name),
    )
    monkeypatch.setattr("mooring.vault._keyring._backend", lambda: backend)
    return kept


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mooring.cli._vault.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True), stderr=sys.stderr)
    )


def statuses(cli: Any, code: int = 0) -> list[dict[str, Any]]:
    return json.loads(cli("vault", "status", "-o", "json", code=code).stdout)


def opens(cli: Any) -> None:
    cli("connector", "verify", "one")


# status


def test_status_where_there_is_no_key_yet(cli, home: Path) -> None:
    result = cli("vault", "status")
    assert result.stderr == "There is no master key yet; it is made with the first connector.\n"
    assert statuses(cli) == []
    assert yaml.safe_load(cli("vault", "status", "-o", "yaml").stdout) == []
    assert not (home / "master.key").exists()


def test_status_shows_each_key(cli, registered, ring: Path) -> None:
    cli("vault", "rotate")
    active, old = key_file(ring)
    table = cli("vault", "status").stdout
    assert table.split("\n")[0].split() == ["KEY", "STATE", "SOURCE", "CONNECTORS", "CREATED", "RETIRED"]
    first, second = statuses(cli)
    assert (first["id"], first["state"], first["connectors"], first["retired_at"]) == (active.id, "active", 1, None)
    assert (second["id"], second["state"], second["connectors"]) == (old.id, "retired", 0)
    assert second["retired_at"] >= first["created_at"] >= second["created_at"]
    assert first["source"] == str(ring)
    assert set(first) == {"id", "state", "source", "connectors", "created_at", "retired_at"}
    assert [one["id"] for one in yaml.safe_load(cli("vault", "status", "-o", "yaml").stdout)] == [active.id, old.id]


def test_status_of_a_missing_key_is_a_failure(cli, registered, ring: Path) -> None:
    (key,) = key_file(ring)
    ring.unlink()
    assert [(one["id"], one["state"], one["connectors"]) for one in statuses(cli, code=7)] == [(key.id, "missing", 1)]
    assert "missing" in cli("vault", "status", code=7).stdout


def test_status_of_a_malformed_ring_is_one_line(cli, registered, ring: Path) -> None:
    ring.write_text("nonsense")
    result = cli("vault", "status", code=6)
    assert result.stderr == f"Error: master key 1 in {ring} is not of the form id:key with an id of its own\n"


# rotate


def test_rotate_says_what_it_did(cli, registered, ring: Path) -> None:
    (old,) = key_file(ring)
    result = cli("vault", "rotate")
    active, _ = key_file(ring)
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert ["active", "key", active.id] in rows
    assert ["wrapped", "anew", "1", "connector"] in rows
    assert ["retired", old.id] in rows
    assert "problems" not in result.stdout
    assert result.stderr == ""
    opens(cli)


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_rotate_for_programs(cli, registered, ring: Path, form: str, load: Any) -> None:
    (old,) = key_file(ring)
    done = load(cli("vault", "rotate", "-o", form).stdout)
    assert done == {
        "key_id": key_file(ring)[0].id,
        "resumed": False,
        "rewrapped": 1,
        "retired": [old.id],
        "problems": [],
    }


def test_rotate_into_the_keyring_and_back(cli, registered, ring: Path, keyring: dict[Any, str]) -> None:
    cli("vault", "rotate", "--into", "keyring")
    assert statuses(cli)[0]["source"] == "the OS keyring"
    assert [name for _, name in keyring] == [key_file(ring)[0].id]
    opens(cli)
    assert "the OS keyring" in cli("doctor", "--offline").stdout
    kept = dict(keyring)
    keyring.clear()
    result = cli("vault", "rotate", code=6)
    assert result.stderr.startswith("Error: the OS keyring holds no master key")
    doctor = json.loads(cli("doctor", "--offline", "-o", "json", code=7).stdout)
    assert doctor[0]["check"] == "master key"
    assert doctor[0]["status"] == "fail"
    assert "the OS keyring holds no master key" in doctor[0]["detail"]
    keyring.update(kept)
    cli("vault", "rotate", "--into", "file")
    cli("vault", "prune", "--yes")
    assert not keyring
    opens(cli)


def test_rotate_where_there_is_no_keyring(cli, registered, ring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("keyring.backend"), "get_all_keyring", list)
    before = ring.read_bytes()
    result = cli("vault", "rotate", "--into", "keyring", code=6)
    assert result.stderr.startswith("Error: there is no OS keyring here (a headless machine has none); ")
    assert result.stderr.count("\n") == 1
    assert ring.read_bytes() == before


def test_rotate_into_nowhere(cli) -> None:
    result = cli("vault", "rotate", "--into", "drawer", code=2)
    assert "'drawer' is not one of" in result.stderr
    assert result.stderr.count("\n") == 1


def test_rotate_with_something_that_cannot_be_opened_is_a_failure(cli, registered, ring: Path, home: Path) -> None:
    import sqlite3
    from contextlib import closing

    cli("connector", "register", "two", "-t", "acme", "-a", "key", "--token", "-", input="t0ken-two\n")
    with closing(sqlite3.connect(home / "mooring.db")) as raw, raw:
        raw.execute("UPDATE connectors SET allow_long_lived = 1 WHERE name = 'two'")
    result = cli("vault", "rotate", code=7)
    assert "two: a sealed secret was altered or moved" in " ".join(result.stdout.split())
    done = json.loads(cli("vault", "rotate", "-o", "json", code=7).stdout)
    assert [problem.partition(":")[0] for problem in done["problems"]] == ["two"]
    opens(cli)


def test_rotating_the_hosts_keys(cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORING_MASTER_KEY", K1)
    cli("connector", "register", "one", "-t", "acme", "-a", "key", "--token", "-", input="t0ken-registered\n")
    result = cli("vault", "rotate", code=2)
    assert "put a new one before it, as in new:...,old:..., and run this again" in result.stderr
    assert result.stderr.count("\n") == 1
    monkeypatch.setenv("MOORING_MASTER_KEY", f"{K2},{K1}")
    result = cli("vault", "rotate")
    assert result.stderr == "This finished an earlier rotation and made no new key; for one, run it again.\n"
    assert [(one["id"], one["state"]) for one in statuses(cli)] == [("k2", "active"), ("k1", "retired")]
    result = cli("vault", "prune", "-y", code=2)
    assert result.stderr == ("Error: the master keys are the host's; take the retired ones out of MOORING_MASTER_KEY\n")
    monkeypatch.setenv("MOORING_MASTER_KEY", K2)
    opens(cli)
    assert [(one["id"], one["state"]) for one in statuses(cli)] == [("k2", "active"), ("k1", "removed")]
    assert not (home / "master.key").exists()


# prune


def test_prune_where_nothing_is_retired(cli, registered) -> None:
    assert cli("vault", "prune").stderr == "There is no retired master key.\n"


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_prune_asks_on_a_terminal(cli, registered, ring: Path, on_a_terminal, answer: str) -> None:
    old = key_file(ring)[0].id
    cli("vault", "rotate")
    result = cli("vault", "prune", input=answer, code=130)
    assert f"Remove {old} for good? Backups made under them will not open any more. [y/N]:" in result.stderr
    assert result.stdout == ""
    assert len(key_file(ring)) == 2
    assert cli("vault", "prune", input="y\n").stderr.endswith(f"Removed {old}.\n")
    assert len(key_file(ring)) == 1
    opens(cli)


@pytest.mark.parametrize("option", ["--yes", "-y"])
def test_prune_wants_a_yes_where_there_is_no_terminal(cli, registered, ring: Path, option: str) -> None:
    old = key_file(ring)[0].id
    cli("vault", "rotate")
    refused = cli("vault", "prune", code=2)
    assert "without a terminal to ask on, say --yes" in refused.stderr
    assert len(key_file(ring)) == 2
    assert cli("vault", "prune", option).stderr == f"Removed {old}.\n"
    assert [(one["id"], one["state"]) for one in statuses(cli)] == [(key_file(ring)[0].id, "active"), (old, "removed")]


def test_yes_asks_not_on_a_terminal_either(cli, registered, ring: Path, on_a_terminal) -> None:
    cli("vault", "rotate")
    assert "[y/N]" not in cli("vault", "prune", "--yes").output


# export


def test_export_prints_what_the_variable_takes(
    cli, registered, ring: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = cli("vault", "export").stdout
    assert old == ring.read_text()
    cli("vault", "rotate")
    active, retired = key_file(ring)
    assert cli("vault", "export").stdout == f"{active.line()}\n"
    assert cli("vault", "export", retired.id).stdout == old
    ring.rename(home / "elsewhere")
    monkeypatch.setenv("MOORING_MASTER_KEY", f"{active.line()}")
    opens(cli)


def test_export_fetches_from_the_keyring(cli, registered, ring: Path, keyring: dict[Any, str]) -> None:
    cli("vault", "rotate", "--into", "keyring")
    ((name, key),) = ((name, key) for (_, name), key in keyring.items())
    assert cli("vault", "export").stdout == f"{name}:{key}\n"


def test_export_of_what_is_not_there(cli, registered, ring: Path) -> None:
    (key,) = key_file(ring)
    result = cli("vault", "export", "nobody", code=6)
    assert result.stderr == f"Error: there is no master key 'nobody' at hand; there are: {key.id}\n"
    ring.unlink()
    result = cli("vault", "export", code=6)
    assert result.stderr == ("Error: there is no master key; restore its file, or set MOORING_MASTER_KEY to id:key\n")


# Nothing else shows a key


def forms(path: Path) -> list[str]:
    found = []
    for key in key_file(path):
        raw = key.raw()
        plain = base64.b64encode(raw).decode().rstrip("=")
        found += [plain, plain.replace("+", "-").replace("/", "_"), raw.hex(), repr(raw)[2:-1]]
    return found


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
def test_no_other_command_shows_a_key(
    cli, process, registered, ring: Path, home: Path, tmp_path: Path, debug: tuple[str, ...], keyring: dict[Any, str]
) -> None:
    done = [cli(*debug, "vault", "rotate", "-o", "json"), process(*debug, "vault", "rotate")]
    secret = forms(ring)
    done += [
        cli(*debug, "vault", "rotate", "--into", "keyring"),
        cli(*debug, "vault", "status"),
        process(*debug, "vault", "status", "-o", "json"),
        cli(*debug, "vault", "status", "-o", "yaml"),
        cli(*debug, "vault", "export", "nobody", code=6),
        cli(*debug, "doctor"),
        cli(*debug, "connector", "describe", "one", "-o", "json"),
    ]
    secret += list(keyring.values())
    kept = ring.read_text()
    for text, code in ((kept.replace(":", " "), 6), (kept + kept, 6), (kept.replace("=", "=="), 6)):
        ring.write_text(text)
        done += [cli(*debug, "vault", verb, code=code) for verb in ("status", "rotate", "export")]
        done += [cli(*debug, "connector", "verify", "one", code=code), cli(*debug, "doctor", "--offline", code=7)]
    ring.write_text(kept)
    ring.chmod(0o640)
    if os.name == "posix":
        done.append(process(*debug, "vault", "rotate", code=6))
    ring.chmod(0o600)
    keyring.update(dict.fromkeys(keyring, "n0t-a-key"))
    done += [cli(*debug, "vault", verb, code=6) for verb in ("rotate", "export")]
    for one in done:
        assert not [form for form in (*secret, "n0t-a-key") if form in one.stdout + one.stderr]
        if not debug:
            assert one.stderr.count("\n") <= 1
    assert len(secret) == 13
