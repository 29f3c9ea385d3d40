"""`backup`, `restore`, `store check`, and what the other commands say of damage."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import click
import pytest
import yaml

from mooring.store._schema import APPLICATION_ID

CANARY = "t0ken-registered"
REGISTER = ("connector", "register", "--type=acme", "-a", "key", "--token=-", "--no-verify")


def change(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "mooring.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def everything(home: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in home.iterdir() if one.is_file() and not one.name.endswith("-shm")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "it.backup"


def listed(cli) -> list[str]:
    return [one["name"] for one in json.loads(cli("connector", "list", "-o", "json").stdout)]


def test_backup_restore_and_check(cli, registered, file, home, tmp_path, monkeypatch) -> None:
    result = cli("backup", str(file))
    assert (result.stdout, result.stderr) == ("", f"Backed up 1 connector to {file}.\n")
    assert CANARY not in file.read_bytes().decode("latin-1")
    assert cli("store", "check").stdout.split() == ["connectors", "1", "documents", "0", "problems", "none"]
    assert cli("store", "check", str(file)).stdout.split() == ["connectors", "1", "documents", "0", "problems", "none"]
    key = cli("vault", "export").stdout.strip()

    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "another machine"))
    error = cli("restore", str(file), code=6).stderr
    assert error.startswith("Error: there is no master key, but this is sealed under 'local-")
    assert error.count("\n") == 1
    monkeypatch.setenv("MOORING_MASTER_KEY", key)
    result = cli("restore", str(file))
    assert result.stdout == ""
    assert result.stderr.startswith("Restored 1 connector, as of 20")
    assert CANARY in cli("connector", "describe", registered, "-x").stdout
    assert listed(cli) == ["one"]


@pytest.mark.parametrize(("kind", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_data_is_data(cli, registered, file, home, kind, read) -> None:
    note = read(cli("backup", str(file), "-o", kind).stdout)
    assert sorted(note) == ["connectors", "created_at", "version"]
    assert note["connectors"] == 1
    for more in ((), (str(file),)):
        assert read(cli("store", "check", *more, "-o", kind).stdout) == {
            "connectors": 1, "documents": 0, "problems": [], "closed": []
        }  # fmt: skip
    done = read(cli("restore", str(file), "--replace", "-o", kind).stdout)
    assert done["note"] == note
    assert Path(done["saved"]).parent == home
    change(home, "UPDATE connectors SET labels = '5'")
    report = read(cli("store", "check", "-o", kind, code=7).stdout)
    assert report["connectors"] == 0
    assert "the record of connector 'one'" in report["problems"][0]


def test_a_backup_takes_no_name_that_is_taken(cli, registered, file, tmp_path) -> None:
    file.write_text("precious")
    assert cli("backup", str(file), code=2).stderr == (
        f"Error: {file} exists already; a backup is written into a new file\n"
    )
    assert file.read_text() == "precious"
    error = cli("backup", str(tmp_path / "gone" / "it"), code=5).stderr
    assert "cannot be written: No such file or directory" in error
    assert error.count("\n") == 1
    assert "see: mooring backup --help" in cli("backup", code=2).stderr


def test_restore_replaces_only_if_told_and_keeps_what_was_there(cli, registered, file, home) -> None:
    cli("backup", str(file))
    cli(*REGISTER, "two", input="t")
    before = everything(home)
    assert "the store holds 2 connectors; to have the backup's in their place, say --replace" in (
        cli("restore", str(file), code=2).stderr
    )
    after = everything(home)  # the store has the attempt in its audit log, and no other change
    assert {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)} <= {"mooring.db"}
    assert listed(cli) == ["one", "two"]
    result = cli("restore", str(file), "--replace")
    assert listed(cli) == ["one"]
    (saved,) = home.glob("before-restore-*.backup")
    assert f"What was stored before is in {saved}." in result.stderr
    cli("restore", str(saved), "--replace", "--yes")
    assert listed(cli) == ["one", "two"]


@pytest.mark.parametrize(
    ("arguments", "answer", "asked", "code"),
    [
        (("--replace",), "n\n", True, 130),
        (("--replace",), "y\n", True, 0),
        (("--replace", "-y"), "", False, 0),
        ((), "", False, 2),
    ],
)
def test_replacing_asks_on_a_terminal(cli, registered, file, home, monkeypatch, arguments, answer, asked, code) -> None:
    cli("backup", str(file))
    cli(*REGISTER, "two", input="t")
    questions = []

    def confirm(text: str, **options) -> bool:
        questions.append(text)
        return answer == "y\n"

    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr("mooring.cli._backup.sys", type("sys", (), {"stdin": type("t", (), {"isatty": lambda: True})}))
    error = cli("restore", str(file), *arguments, code=code).stderr
    monkeypatch.undo()
    os.environ["MOORING_HOME"] = str(home)
    assert questions == (["Replace all connectors that are stored by those of the backup?"] if asked else [])
    assert ("Nothing was restored." in error) == (code == 130)
    with closing(sqlite3.connect(home / "mooring.db")) as connection:
        assert connection.execute("SELECT count(*) FROM connectors").fetchone() == ((1 if code == 0 else 2),)
    del os.environ["MOORING_HOME"]


FOREIGN = {
    "another database": lambda file, whole: make(file, "CREATE TABLE t (x)"),
    "another application": lambda file, whole: make(file, "PRAGMA application_id = 77", "CREATE TABLE t (x)"),
    "a newer schema": lambda file, whole: make(
        file, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 99", "CREATE TABLE t (x)"
    ),
    "text": lambda file, whole: file.write_text("hello\n" * 500),
    "a byte": lambda file, whole: file.write_bytes(b"x"),
    "cut": lambda file, whole: file.write_bytes(whole[: len(whole) // 2]),
    "zeroed pages": lambda file, whole: file.write_bytes(whole[:4096] + bytes(len(whole) - 4096)),
    "zeros": lambda file, whole: file.write_bytes(bytes(len(whole))),
}


def make(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_store_that_is_none_is_left_as_it_is(cli, registered, file, home, kind) -> None:
    cli("backup", str(file))
    path = home / "mooring.db"
    whole = path.read_bytes()
    path.unlink()
    FOREIGN[kind](path, whole)
    before = everything(home)
    for command in (
        ("connector", "list"),
        ("connector", "describe", "one"),
        ("connector", "delete", "one", "-y"),
        ("backup", str(file.with_name("another"))),
        ("restore", str(file)),
        ("restore", str(file), "--replace", "-y"),
    ):
        result = cli(*command, code=5)
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert str(path) in result.stderr
        assert everything(home) == before
    checked = cli("store", "check", code=5)
    assert str(path) in checked.output
    assert everything(home) == before
    assert not file.with_name("another").exists()
    doctor = cli("doctor", "--offline", code=7)
    assert "store" in doctor.stdout
    assert everything(home) == before

    path.unlink()  # moved away, as the message says
    cli("restore", str(file))
    assert listed(cli) == ["one"]


def test_a_store_that_was_cut_within_its_last_page_is_found_by_the_check(cli, registered, home) -> None:
    """SQLite takes the rest for zeros, and notices when it is read."""
    rows = (
        "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 200) SELECT n, 'c', '{}', '2100', 0, '' FROM n"
    )
    change(home, f"INSERT INTO undo_log {rows}")  # the last page is of this table
    path = home / "mooring.db"
    path.write_bytes(path.read_bytes()[:-1000])
    before = everything(home)
    report = json.loads(cli("store", "check", "-o", "json", code=7).stdout)
    assert report["problems"][0].startswith("the file is damaged: ")
    assert all(" is damaged" in one and "\n" not in one for one in report["problems"])
    assert everything(home) == before


@pytest.fixture
def damaged(cli, registered, home) -> str:
    for name in ("bad", "worse"):
        cli(*REGISTER, name, "-l", "team=ml", input="t")
    change(
        home,
        "UPDATE connectors SET settings = '{\"a\": cAnArY' WHERE name = 'bad'",
        "UPDATE connectors SET description = CAST(x'ff' AS TEXT) WHERE name = 'worse'",
    )
    return "bad"


@pytest.mark.parametrize(("kind", "read"), [("json", json.loads), ("yaml", yaml.safe_load), ("table", None)])
def test_list_tells_of_what_is_damaged_beside_the_others(cli, damaged, kind, read) -> None:
    result = cli("connector", "list", "-o", kind, code=5)
    if read:
        assert [one["name"] for one in read(result.stdout)] == ["one"]
    else:
        assert [line.split()[0] for line in result.stdout.splitlines() if line[0] != " "] == ["NAME", "one"]
    errors = result.stderr.splitlines()
    assert [error.partition(" in ")[0] for error in errors] == [
        "Error: the record of connector 'bad'",
        "Error: the record of connector 'worse'",
    ]
    assert all("mooring connector delete --damaged" in error for error in errors)
    assert "cAnArY" not in result.output


def test_list_filters_what_is_damaged_too(cli, damaged) -> None:
    assert cli("connector", "list", "--name", "one").stderr == ""
    assert "'bad'" in cli("connector", "list", "--name", "ba*", code=5).stderr
    assert cli("connector", "list", "--label", "team=ops").stderr == "No connector matches.\n"
    assert "'worse'" in cli("connector", "list", "--label", "team=ml", code=5).stderr


def test_delete_damaged(cli, damaged, monkeypatch) -> None:
    error = cli("connector", "delete", "bad", code=5).stderr
    assert "mooring connector delete --damaged bad" in error
    assert cli("connector", "delete", "--damaged", "bad").stderr == "Removed the damaged record 'bad'.\n"
    for name in ("bad", "one"):
        assert cli("connector", "delete", "--damaged", name, code=2).stderr == (
            f"Error: no damaged record is named {name!r}; what can be read goes without --damaged\n"
        )
    monkeypatch.setattr("mooring.cli._stored.sys", type("sys", (), {"stdin": type("t", (), {"isatty": lambda: True})}))
    monkeypatch.setattr(click, "confirm", lambda *args, **options: False)
    assert cli("connector", "delete", "--damaged", "worse", code=130).stderr == "Nothing was deleted.\n"
    monkeypatch.setattr(click, "confirm", lambda *args, **options: True)
    cli("connector", "delete", "--damaged", "worse")
    assert listed(cli) == ["one"]


def test_list_resources_shows_what_is_damaged_as_failed(cli, damaged, home) -> None:
    def rows(*arguments: str, code: int = 0) -> dict[str, bool]:
        found = json.loads(cli("connector", "list-resources", *arguments, "-o", "json", code=code).stdout)
        return {one["connector"]: bool(one["errors"]) for one in found}

    assert rows() == {"bad": True, "one": False, "worse": True}
    assert rows("-c", "acme", "-r", "acme-bucket") == {"bad": True, "one": False, "worse": True}
    assert rows("-l", "team=ml", code=7) == {"bad": True, "worse": True}
    assert rows("-n", "one", "-n", "bad") == {"bad": True, "one": False}
    assert rows("-n", "bad", code=7) == {"bad": True}
    assert rows("-n", "bad", "-i", "first", code=7) == {"bad": True}
    table = cli("connector", "list-resources").stdout
    assert "Error: the record of connector 'bad'" in table
    assert "cAnArY" not in table
    assert list(json.loads(cli("connector", "list-resources", "-e", "-o", "json").stdout)[0]) != []


def test_doctor_and_check_tell_of_all_that_is_wrong(cli, damaged, home) -> None:
    cli(*REGISTER, "moved", input="t")
    change(home, "UPDATE connectors SET settings = '{\"port\": 1}' WHERE name = 'moved'")
    result = cli("doctor", "--offline", "-o", "json", code=7)
    checks = {one["check"]: one for one in json.loads(result.stdout)}
    assert checks["store"]["status"] == "fail"
    assert "'bad'" in checks["store"]["detail"]
    assert "'worse'" in checks["store"]["detail"]
    assert checks["seals"]["status"] == "fail"
    assert checks["seals"]["detail"].startswith("1 of 2 closed: connector 'moved': ")
    report = json.loads(cli("store", "check", "-o", "json", code=7).stdout)
    assert (report["connectors"], len(report["problems"])) == (2, 3)
    shutil.move(home / "master.key", home / "hidden")
    checks = {one["check"]: one for one in json.loads(cli("doctor", "--offline", "-o", "json", code=7).stdout)}
    assert checks["seals"]["detail"].startswith("2 of 2 closed: ")
