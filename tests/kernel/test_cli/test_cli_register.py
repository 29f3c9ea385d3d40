import json
from pathlib import Path

import pytest

REGISTER = ("connector", "register", "one", "--type", "acme", "--auth-method", "key")


def stored(cli) -> list[dict]:
    return json.loads(cli("connector", "list", "-o", "json").stdout)


def test_a_connector_is_registered_and_shows_what_it_reaches(cli) -> None:
    result = cli(*REGISTER, "--token", "-", input="s3cret\n")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[1][1:] == ["one", "acme", "acme-account", "4711"]
    assert rows[2:] == [["acme-bucket", "first"], ["second"]]
    assert result.stderr == "Registered the connector 'one'; it reaches:\n"


def test_fields_of_every_kind_in_every_spelling(cli) -> None:
    cli(
        *(
            "connector",
            "register",
            "--token=-",
            "--regions",
            "north",
            "--regions=east",
            "--tags",
            "a=b=c",
            "--tags=d=e",
        ),
        *(
            "--insecure",
            "--field.port",
            "8443",
            "one",
            "--type=acme",
            "--auth_method=key",
            "--resource_type",
            "acme-bucket",
        ),
        *("--resource_id", "acme://first", "--label", "team=ml", "-l", "env=dev", "--ttl", "1h30m", "--owner", "ann"),
        *(
            "--expires-at",
            "2099-01-02T03:04:05Z",
            "--expires-skew",
            "5m",
            "--description",
            "mine",
            "--allow-unnarrowed",
        ),
        input="s3cret\n",
    )
    (one,) = stored(cli)
    assert one["configuration"] == {
        "regions": ["north", "east"],
        "tags": {"a": "b=c", "d": "e"},
        "insecure": True,
        "port": 8443,
        "token": "********",
    }
    wanted = {
        "resource_type": "acme-bucket",
        "resource_id": "first",
        "labels": {"team": "ml", "env": "dev"},
        "ttl": "PT5400S",
        "owner": "ann",
        "expires_at": "2099-01-02T03:04:05Z",
        "expires_skew": "PT300S",
        "description": "mine",
        "allow_unnarrowed": True,
        "allow_long_lived": False,
    }
    assert {key: one[key] for key in wanted} == wanted


def test_flags_can_be_said_in_four_ways(cli) -> None:
    for number, option in enumerate(("--insecure", "--insecure=true", "--no-insecure", "--insecure=false")):
        cli(*REGISTER[:2], f"n{number}", *REGISTER[3:], "--token=-", option, "--no-verify", input="t0ken")
    assert [one["configuration"].get("insecure", False) for one in stored(cli)] == [True, True, False, False]


def test_secrets_come_from_files_and_standard_input(cli, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    result = cli(*REGISTER, "--token", f"@{tmp_path / 'token'}", "--backup-token", "-", input="from-stdin\n")
    assert "Warning" not in result.stderr
    shown = json.loads(cli("connector", "describe", "one", "--show-secrets", "-o", "json").stdout)["configuration"]
    assert shown == {"token": "from-a-file", "backup_token": "from-stdin"}


def test_a_value_may_begin_with_an_at_sign(cli) -> None:
    cli(*REGISTER, "--token=@@home")
    assert "@home" in cli("connector", "describe", "one", "-x").stdout


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--token", "@/nonexistent/pa55word"), "the file for field 'token' cannot be read: No such file"),
        (("--token", "-", "--backup-token", "-"), "cannot both be read from standard input"),
        (("--token",), "option --token needs a value"),
        (("--token", "--insecure"), "option --token needs a value"),
        (("--token", "-tpa55word"), "a value that begins with - is written --option=-..."),
        (("--token", "pa55word", "--token", "pa55word"), "field 'token' was given twice"),
        (("--token", "pa55word", "--tags", "pa55word"), "field 'tags' is given as key=value"),
        (("--token", "pa55word", "--port", "pa55word"), "field 'port'"),
        (("--token", "pa55word", "pa55word"), "1 argument too many"),
        (("--tokne", "pa55word"), "no such option or field: --tokne; did you mean '--token'?"),
        (("--tokne=pa55word",), "no such option or field: --tokne; did you mean '--token'?"),
        (("--resource-types", "pa55word"), "did you mean '--resource-type'?"),
        (("--role", "pa55word"), "--role is a field of the auth method 'role'"),
        ((), "field 'token' is required"),
        (("--tags", "pa55word"), "field 'token' is required; see: mooring connector describe-type acme"),
        (("--token", "@/dev/null"), "there is nothing"),
        (("--token", "pa55word", "--ttl", "pa55word"), "not a duration"),
        (("--token", "pa55word", "--ttl", "0"), "longer than nothing"),
        (("--token", "pa55word", "--expires-at", "pa55word"), "not a date and time"),
        (("--token", "pa55word", "--label", "pa55word"), "a label is written key=value"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_the_value(cli, given, says) -> None:
    result = cli(*REGISTER, *given, code=2, input="pa55word")
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert says in error
    assert result.stderr.endswith(f"{error}\n")
    assert result.stdout == ""
    assert "pa55word" not in result.output
    assert stored(cli) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("one",), "name the connector type with --type; installed: "),
        (("--type", "acme", "-a", "key"), "the connector's NAME is missing"),
        (
            ("one", "--type", "acme"),
            "name an auth method of 'acme' with --auth-method, or --auto-configure; one of: key, role",
        ),
        (("one", "--type", "acne"), "did you mean 'acme'?"),
        (("one", "--type", "acme", "-a", "kee"), "did you mean 'key'?"),
        (("one", "--type", "acme", "-a", "key", "--token=t0ken", "-r", "acme-bukket"), "did you mean 'acme-bucket'?"),
        (("-z", "one", "--type", "acme", "-a", "key", "--token=t0ken"), "no such option or field: -z"),
    ],
)
def test_names_are_suggested(cli, arguments, says) -> None:
    assert says in cli("connector", "register", *arguments, code=2).stderr


def test_a_secret_in_clear_is_a_warning(cli) -> None:
    result = cli(*REGISTER, "--token", "s3cret", "--backup_token=s3cret")
    warning = result.stderr.splitlines()[0]
    assert warning.startswith("Warning: what is given on the command line (here: token, backup_token) can be seen")
    assert "s3cret" not in result.output


def test_nothing_is_stored_that_the_vendor_does_not_accept(cli) -> None:
    result = cli(*REGISTER, "--token=-", "--mode=deny", input="s3cret", code=4)
    assert result.stderr == "Error: acme does not accept the token; give another\n"
    assert stored(cli) == []
    result = cli(*REGISTER, "--token=-", "--mode=deny", "--no-verify", input="s3cret")
    assert result.stderr == "Registered the connector 'one'.\n"
    assert "auth method" in result.stdout
    assert cli(*REGISTER, "--token=-", input="s3cret", code=2).stderr.startswith(
        "Error: a connector named 'one' exists"
    )


def test_what_cannot_be_listed_has_its_error_in_its_row(cli) -> None:
    result = cli(*REGISTER, "--token=-", "--regions=north", "--regions=south", input="s3cret")
    assert "Error in south: acme does not show the south; ask for it" in result.stdout
    assert "first" in result.stdout


def test_auto_configuration_says_what_it_found_and_where(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("connector", "register", "one", "--type", "acme", "--auto-configure", "--regions", "east")
    assert cli(*arguments, code=2).stderr.startswith("Error: ACME_TOKEN is not set; set it")
    monkeypatch.setenv("ACME_TOKEN", "l1fted")
    result = cli(*arguments)
    first = result.stderr.splitlines()[0]
    assert first == "Auto-configured with the auth method 'key' from the environment (ACME_TOKEN)."
    shown = json.loads(cli("connector", "describe", "one", "-x", "-o", "json").stdout)
    assert shown["configuration"] == {"token": "l1fted", "regions": ["east"]}
    assert "l1fted" not in result.output


def test_all_missing_fields_are_named_before_anything_is_asked(cli) -> None:
    result = cli("connector", "register", "one", "-t", "acme", "-a", "role", code=2)
    assert result.stderr.startswith("Error: the fields 'role', 'token' are required; see: mooring connector desc")


def test_register_as_json(cli) -> None:
    result = cli(*REGISTER, "--token=-", "-o", "json", input="s3cret")
    data = json.loads(result.stdout)
    assert data["name"] == "one"
    assert [(one["resource_type"], len(one["resources"])) for one in data["resources"]] == [
        ("acme-account", 1),
        ("acme-bucket", 2),
    ]
