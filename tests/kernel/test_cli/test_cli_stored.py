import json
import sqlite3

import pytest
import yaml


def described(cli, name: str = "one", *more: str) -> dict:
    return json.loads(cli("connector", "describe", name, "-o", "json", *more).stdout)


@pytest.fixture
def fleet(cli) -> None:
    for name, *more in (
        ("prod-a", "-a", "key", "-l", "team=ml", "--expires-at", "2001-01-01"),
        ("prod-b", "-a", "key", "-r", "acme-bucket", "--resource-id", "first", "-l", "team=ops"),
        ("dev", "-a", "role", "--role", "r", "-l", "env=dev"),
    ):
        cli("connector", "register", name, "-t", "acme", "--token=-", "--no-verify", *more, input="s3cret")


def test_list(cli, fleet) -> None:
    result = cli("connector", "list")
    header, *rows = result.stdout.splitlines()
    for column in (
        "NAME",
        "ID",
        "TYPE",
        "AUTH METHOD",
        "RESOURCE TYPES",
        "RESOURCE NAME",
        "OWNER",
        "EXPIRES IN",
        "LABELS",
    ):
        assert column in header
    assert [row.split()[0] for row in rows if not row.startswith(" ")] == ["dev", "prod-a", "prod-b"]
    assert "<multiple>" in rows[0]
    assert "expired" in result.stdout
    assert max(len(row.split()[1]) for row in rows if not row.startswith(" ")) == 36  # ids are whole in a pipe
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (("--type", "acme"), ["dev", "prod-a", "prod-b"]),
        (("--auth-method", "role"), ["dev"]),
        (("--resource_type", "acme-account"), ["prod-a"]),
        (("--resource-type", "acme-bucket", "--resource-id", "acme://second"), ["dev", "prod-a"]),
        (("--label", "team"), ["prod-a", "prod-b"]),
        (("--label", "team=ml"), ["prod-a"]),
        (("--label", "team=m*"), ["prod-a"]),
        (("--label", "team=[mo]*", "--label", "env"), []),
        (("--label", "team=*l*"), ["prod-a"]),
        (("--name", "prod-*"), ["prod-a", "prod-b"]),
        (("--name", "prod"), []),
    ],
)
def test_list_filters(cli, fleet, filters, names) -> None:
    result = cli("connector", "list", *filters, "-o", "json")
    assert [one["name"] for one in json.loads(result.stdout)] == names
    assert result.stderr == ("" if names else "No connector matches.\n")


def test_a_filter_that_names_nothing_suggests(cli, fleet) -> None:
    assert "did you mean 'acme'?" in cli("connector", "list", "--type", "acmee", code=2).stderr
    assert "did you mean 'acme-bucket'?" in cli("connector", "list", "-r", "acme-buckt", code=2).stderr
    assert "did you mean 'role'?" in cli("connector", "list", "-a", "rol", code=2).stderr


def test_an_id_of_no_form_is_an_error(cli, fleet) -> None:
    result = cli("connector", "list", "-i", "bad??", code=2)
    assert result.stderr.startswith("Error: no resource type has ids of this form; acme-bucket: NAME or acme://NAME")
    assert cli("connector", "list", "-r", "acme-bucket", "-i", "bad??", code=2).stderr.startswith("Error: not an id of")
    assert cli("connector", "list", "-n", "prod-b", "-i", "unheard").stderr == "No connector matches.\n"


def test_an_empty_store_is_no_error(cli) -> None:
    result = cli("connector", "list", "-o", "json")
    assert result.stdout == "[]\n"
    assert result.stderr == "There is no connector; to make one: mooring connector register\n"


def test_describe_masks_secrets_unless_they_are_asked_for(cli, registered) -> None:
    assert "t0ken" not in cli("connector", "describe", registered).output
    assert described(cli)["configuration"] == {"token": "********"}
    assert "t0ken-registered" in cli("connector", "describe", registered, "--show_secrets").stdout
    assert yaml.safe_load(cli("connector", "describe", "one", "-x", "-o", "yaml").stdout)["configuration"] == {
        "token": "t0ken-registered"
    }
    assert "did you mean 'one'?" in cli("connector", "describe", "onne", code=2).stderr
    assert described(cli, described(cli)["id"][:8])["name"] == "one"


def test_update_changes_only_what_is_named(cli, registered) -> None:
    cli(
        "connector",
        "update",
        "one",
        "--label",
        "a=b",
        "--label=c=d",
        "--description",
        "text",
        "--ttl",
        "20m",
        "--port=80",
    )
    one = described(cli)
    assert (one["labels"], one["description"], one["ttl"]) == ({"a": "b", "c": "d"}, "text", "PT1200S")
    assert one["configuration"] == {"token": "********", "port": 80}
    cli("connector", "update", "one", "--label=a=", "--remove-label=c", "--ttl=", "--remove=port", "--allow-long-lived")
    one = described(cli)
    assert (one["labels"], one["description"], one["ttl"]) == ({}, "text", None)
    assert one["configuration"] == {"token": "********"}
    assert one["allow_long_lived"] is True
    cli("connector", "update", "one", "--name", "two", "--no-allow-long-lived", "-r", "acme-bucket", "-i", "first")
    two = described(cli, "two")
    assert (two["allow_long_lived"], two["resource_type"], two["resource_id"]) == (False, "acme-bucket", "first")
    cli("connector", "update", "two", "--resource-id=", "--resource-type=")
    assert (described(cli, "two")["resource_type"], described(cli, "two")["resource_id"]) == (None, None)


def test_update_to_another_auth_method(cli, registered) -> None:
    error = cli("connector", "update", "one", "-a", "role", "--role", "r", code=2).stderr
    assert "field 'token' is required" in error
    result = cli("connector", "update", "one", "-a", "role", "--role", "r", "--token", "-", input="new")
    assert "acme-account" not in result.stdout  # which the new method does not reach
    assert described(cli, "one", "-x")["configuration"] == {"role": "r", "token": "new"}


def test_update_asks_the_vendor_only_if_it_matters(cli, registered) -> None:
    before = described(cli)
    assert cli("connector", "update", "one", "--mode=deny", code=4).stderr.startswith("Error: acme does not accept")
    assert described(cli) == before
    cli("connector", "update", "one", "--mode=deny", "--no-verify")
    assert cli("connector", "update", "one", "--label=a=b").stderr == "Updated the connector 'one'.\n"
    assert cli("connector", "update", "one", "--label=a=c", "--verify", code=4).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("one",), "there is nothing to change"),
        ((), "write the connector's NAME before its fields"),
        (("--port", "80", "one"), "write the connector's NAME before its fields"),
        (("onne", "--port", "80"), "did you mean 'one'?"),
        (("one", "--prot", "80"), "did you mean '--port'?"),
        (("one", "--remove", "prt"), "there is no field 'prt' to remove; did you mean 'port'?"),
        (("one", "--remove", "token"), "field 'token' is required"),
        (("one", "--role", "r"), "--role is a field of the auth method 'role'"),
        (("one", "two", "--port=80"), "1 argument too many"),
        (("one", "--resource-type", "acme-bukket"), "did you mean 'acme-bucket'?"),
    ],
)
def test_update_says_what_is_wrong(cli, registered, arguments, says) -> None:
    before = described(cli)
    assert says in cli("connector", "update", *arguments, code=2).stderr
    assert described(cli) == before


def test_update_says_that_it_renames(cli, registered) -> None:
    assert cli("connector", "update", "one", "--name=two").stderr == "Renamed 'one' to 'two'.\n"
    result = cli("connector", "update", "two", "--name=one", "--description=text")
    assert result.stderr == "Renamed 'two' to 'one' and updated it.\n"


def test_delete(cli, registered) -> None:
    assert "did you mean 'one'?" in cli("connector", "delete", "onee", code=2).stderr
    result = cli("connector", "delete", "one")
    assert (result.stdout, result.stderr) == ("", "Deleted the connector 'one'.\n")
    assert cli("connector", "delete", "one", "--yes", code=2).stderr.startswith("Error: no connector is named 'one'")


@pytest.fixture
def made(cli, registered, home) -> None:
    """What the connector has made at its vendor, which does not let it in any more."""
    with sqlite3.connect(home / "mooring.db") as store:
        row = ("e1", described(cli)["id"], '{"thing":"a"}', "2100-01-01T00:00:00.000000+00:00", 0, "")
        store.execute("INSERT INTO undo_log VALUES (?, ?, ?, ?, ?, ?)", row)
    cli("connector", "update", "one", "--mode=deny", "--no-verify")


def test_delete_refuses_while_something_is_left_at_the_vendor(cli, made) -> None:
    result = cli("connector", "delete", "one", code=4)
    why = "for 1 of what it made at its vendor could not be removed (acme does not accept the token; give another)"
    how = "mend that and delete it again, or use --force and remove them by hand"
    assert (result.stdout, result.stderr) == (
        "",
        f"""Error: connector 'one' was not deleted, {why}: {{"thing":"a"}}; {how}\n""",
    )
    checks = {one["check"]: one for one in json.loads(cli("doctor", "--offline", "-o", "json").stdout)}
    found = checks["removals of one"]
    says = """1 not removed at the vendor after 1 attempt, tried again by itself: {"thing":"a"}"""
    assert (found["status"], found["detail"]) == ("warn", says)
    cli("connector", "update", "one", "--mode=ok")
    assert cli("connector", "delete", "one").stderr == "Deleted the connector 'one'.\n"
    assert "removals" not in cli("doctor").stdout


def test_delete_by_force_says_what_is_left(cli, made) -> None:
    says = """Deleted the connector 'one'.\nLeft at its vendor, remove it by hand: {"thing":"a"}\n"""
    assert cli("connector", "delete", "one", "--force").stderr == says
    assert "its connector is gone or damaged: remove it by hand" in cli("doctor", "-o", "json").stdout
