import json
import subprocess
import sys

HEAVY = (
    "botocore",
    "boto3",
    "aioboto3",
    "httpx",
    "structlog",
    "keyring",
    "aiosqlite",
    "anyio",
    "asyncio",
    "rich",
    "yaml",
)
PROBE = """
import sys
sys.argv = ["mooring", *{arguments!r}]
from mooring.cli import main
try:
    main()
finally:
    print(*(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def test_list_types_shows_what_is_installed(cli) -> None:
    result = cli("service-connector", "list-types", "--type", "acme")
    header, *rows = result.stdout.splitlines()
    for column in ("NAME", "TYPE", "RESOURCE TYPES", "AUTH METHODS", "LOCAL", "REMOTE"):
        assert column in header
    assert rows[0].split() == ["Acme", "Cloud", "acme", "acme-bucket", "key", "yes", "no"]
    assert rows[1].split() == ["acme-account", "role"]
    assert result.stderr == ""


def test_list_types_as_json(cli) -> None:
    found = json.loads(cli("connector", "list_types", "-o", "json").stdout)
    (acme,) = [one for one in found if one["type"] == "acme"]
    assert acme == {
        "name": "Acme Cloud",
        "type": "acme",
        "resource_types": ["acme-bucket", "acme-account"],
        "auth_methods": ["key", "role"],
        "local": True,
        "remote": False,
    }


def test_list_types_filters_and_suggests(cli) -> None:
    assert "acme" in cli("connector", "list-types", "--resource_type", "acme-bucket", "-a", "role").stdout
    assert "did you mean 'acme'?" in cli("connector", "list-types", "-t", "acne", code=2).stderr
    assert "did you mean 'acme-bucket'?" in cli("connector", "list-types", "-r", "acme-buckets", code=2).stderr
    assert "did you mean 'role'?" in cli("connector", "list-types", "-t", "acme", "-a", "rolle", code=2).stderr


def test_a_broken_plugin_is_a_warning(cli, install) -> None:
    install("broken", "[mooring.connectors]\nbroken = broken_plugin:connector\n", {"broken_plugin": "1 / 0\n"})
    result = cli("connector", "list-types")
    assert "acme" in result.stdout
    assert "Warning: the plugin 'broken' of broken cannot be imported" in result.stderr
    assert cli("connector", "describe-type", "broken", code=3).stderr.startswith("Error: the plugin 'broken'")


def test_list_types_loads_no_sdk_and_no_event_loop(acme, install) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(arguments=["service-connector", "list-types"], heavy=HEAVY)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = done.stderr.split()
    assert set(loaded) <= {"anyio"}  # which the plugin of this test imports
    assert "acme" in done.stdout


def test_describe_type(cli) -> None:
    text, formats = cli("connector", "describe-type", "acme").stdout, "json, yaml, lines, env"
    for part in (
        "acme:List",
        "acme://NAME",
        "units, lift, lift_all, explain, render",
        formats,
        "minimum 15m, default 1h",
    ):
        assert part in text
    lines = [line.split() for line in text.splitlines()]
    assert ["token", "secret", "yes", "the", "token"] in lines
    assert ["port", "number", "no", "443"] in lines
    data = json.loads(cli("connector", "describe-type", "acme", "-a", "role", "-o", "json").stdout)
    assert [kind["name"] for kind in data["resource_types"]] == ["acme-bucket"]
    (method,) = data["auth_methods"]
    assert method["name"] == "role"
    assert {"name": "token", "type": "secret", "required": True, "secret": True}.items() <= method["fields"][1].items()
    assert "did you mean 'key'?" in cli("connector", "describe-type", "acme", "-a", "keys", code=2).stderr


def test_describe_type_shows_the_limits(cli) -> None:
    (limit,) = json.loads(cli("connector", "describe-type", "acme", "-o", "json").stdout)["limits"]
    assert limit == {
        "name": "acme-api", "per": ["vendor"], "where": {"vendor": "acme"}, "at_once": 9, "rate": 2.5, "burst": 4,
    }  # fmt: skip
    shown = " ".join(cli("connector", "describe-type", "acme").stdout.split())
    assert "acme-api vendor vendor=acme 9 2.5 a second, 4 at a time" in shown
