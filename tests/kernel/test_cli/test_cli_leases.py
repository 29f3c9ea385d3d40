"""`mooring lease`, `connector delete --revoke`: what is listed, renewed, taken back, and said of the rest."""

import json
import re
import time
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import yaml

import mooring
from mooring.types import instant

FIRST = ("-r", "acme-bucket", "-i", "first")
CANARY = "c4nary+p4ss/word=="
WIDE = """
import msgspec
import mooring as m
from mooring_acme import Acme

class Wide(Acme):
    @m.hookimpl
    def describe(self):
        return msgspec.structs.replace(super().describe(), name="wide")

    @m.hookimpl
    async def revoke_all(self, session, request):
        if session.mode == "refuse":
            raise m.AccessDenied("acme does not let this token revoke; ask for the right")
        return "all are refused"

plugin = Wide()
"""


@pytest.fixture
def issue(cli, registered, monkeypatch) -> Any:
    """Issue, and give what was printed; the secret is a canary."""
    monkeypatch.setenv("ACME_GIVES", CANARY)

    def issue(*more: str, name: str = "one") -> dict[str, Any]:
        return json.loads(cli("issue", name, *(more or FIRST)).stdout)

    return issue


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """There is a terminal, where all is answered with no; the questions."""
    questions: list[str] = []
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    for module in ("_revoke", "_stored"):
        monkeypatch.setattr(f"mooring.cli.{module}.sys", terminal)
    monkeypatch.setattr("click.confirm", lambda text, **_: questions.append(text))
    return questions


@pytest.fixture
def wide(install, cli, issue) -> list[str]:
    """The ids of two leases of `broad`, whose vendor takes everything back or nothing."""
    install("mooring-wide", "[mooring.connectors]\nwide = mooring_wide:plugin\n", {"mooring_wide": WIDE})
    cli("connector", "register", "broad", "-t", "wide", "-a", "key", "--token", "-", input="t0ken")
    return [issue("-r", "acme-bucket", "-i", bucket, name="broad")["lease"] for bucket in ("first", "second")]


def leases(cli, *arguments: str) -> list[dict[str, Any]]:
    return json.loads(cli("lease", "list", "-o", "json", *arguments).stdout)


def revoked(cli, *arguments: str, code: int = 0) -> list[tuple[str, str]]:
    found = json.loads(cli("lease", "revoke", "-o", "json", *arguments, code=code).stdout)
    return [(one["id"], one["state"]) for one in found]


# list, show, renew


def test_list(cli, issue, monkeypatch) -> None:
    first, second = issue(), issue("-r", "acme-account", "--access", "write", "--consumer", "job-7")
    result = cli("lease", "list")
    header, *rows = result.stdout.splitlines()
    assert header.split("  ")[0] == "LEASE"
    assert [row.split()[:4] for row in rows] == [
        [first["lease"], "active", "one", "first"],
        [second["lease"], "active", "one", "acme-account"],
    ]
    assert rows[1].endswith("job-7")
    assert result.stderr == ""
    data = leases(cli)
    assert (data[0]["id"], data[0]["holders"][0]["count"], data[0]["revocation"]) == (first["lease"], 1, "none")
    assert instant(data[0]["expires_at"]) == instant(first["expires_at"])
    assert yaml.safe_load(cli("lease", "list", "-o", "yaml").stdout)[1]["access"] == "write"
    monkeypatch.setenv("MOORING_COLUMNS", "80")
    assert max(map(len, cli("lease", "list").stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (("--connector", "one"), 2),
        (("--resource", "fi"), 1),
        (("--resource", "acme://first"), 0),
        (("--consumer", "job-7"), 1),
        (("--consumer", "job-7", "--resource", "fi"), 0),
        (("--state", "active"), 2),
        (("--state", "revoked", "--state", "expired"), 0),
        (("--all",), 2),
    ],
)
def test_list_filters(cli, issue, filters, count) -> None:
    issue()
    issue("-r", "acme-account", "--consumer", "job-7")
    result = cli("lease", "list", "-o", "json", *filters)
    assert len(json.loads(result.stdout)) == count
    assert result.stderr == ("" if count else "No lease matches.\n")


def test_an_empty_list_says_so(cli) -> None:
    result = cli("lease", "list", "-o", "json")
    assert (result.stdout, result.stderr) == ("[]\n", "There is no lease whose credentials may still work.\n")


def test_what_has_ended_is_over(cli, issue, monkeypatch) -> None:
    monkeypatch.setenv("ACME_LIFE", "0.01")
    lease = issue()["lease"]
    time.sleep(0.05)  # a command takes less than 10 ms here
    assert leases(cli) == []
    assert [(one["id"], one["state"]) for one in leases(cli, "--all")] == [(lease, "expired")]
    assert revoked(cli, lease) == []
    assert cli("lease", "revoke", lease).stderr == f"The lease {lease} is expired already.\n"


def test_what_has_ended_is_over_though_nobody_has_written_it_down(cli, issue, monkeypatch) -> None:
    monkeypatch.setenv("ACME_LIFE", "0.01")
    lease = issue()["lease"]
    time.sleep(0.05)  # a command takes less than 10 ms here

    async def look() -> None:
        async with mooring.open_broker(system_plugins=[], sweep=False) as broker:
            assert (await broker.lease(lease)).state == "expired"
            assert [one.state for one in await broker.leases(states=None)] == ["expired"]
            assert [one.id for one in await broker.leases(states=("expired",))] == [lease]
            assert [*await broker.leases(), *await broker.revoke(lease)] == []

    anyio.run(look)


def test_show(cli, issue) -> None:
    lease = issue()["lease"]
    issue(*FIRST, "--consumer", "job-7")
    text = cli("lease", "show", lease[:8]).stdout
    for part in (lease, "active", "one (acme)", "acme-bucket", "revocable      no", "HOLDER", "job-7"):
        assert part in text
    data = json.loads(cli("lease", "show", lease, "-o", "json").stdout)
    assert [one["consumer"] for one in data["holders"]][1:] == ["job-7"]
    assert data == yaml.safe_load(cli("lease", "show", lease, "-o", "yaml").stdout)
    assert "\nttl            1h\n" in text
    assert "\nttl            20m\n" in cli("lease", "show", issue(*FIRST, "--ttl", "20m")["lease"]).stdout


def test_renew(cli, issue) -> None:
    old = issue()
    result = cli("lease", "renew", old["lease"][:8])
    new = json.loads(result.stdout)
    assert new["credentials"] == {"user": "robot", "password": CANARY}
    assert new["lease"] != old["lease"]
    said = f"Made: lease {new['lease']} in the place of {old['lease']}, which works until "
    assert result.stderr.startswith(said)
    assert [one["id"] for one in leases(cli)] == [old["lease"], new["lease"]]
    again = cli("lease", "renew", old["lease"], "-f", "lines")
    assert again.stdout == f"ACME_USER=robot\nACME_PASSWORD={CANARY}\n"
    assert again.stderr.startswith(f"Made before: lease {new['lease']} in the place of ")
    assert "use one of: json, yaml, lines" in cli("lease", "renew", old["lease"], "-f", "toml", code=2).stderr


# revoke


def test_what_can_be_revoked_is(cli, issue) -> None:
    cli("connector", "update", "one", "--mode=revocable", "--no-verify")
    lease = issue()["lease"]
    result = cli("lease", "revoke", lease)
    assert "does not work any more" in result.stdout
    assert result.stderr == ""
    assert leases(cli) == []
    assert cli("lease", "revoke", lease).stderr == f"The lease {lease} is revoked already.\n"


def test_what_cannot_be_revoked_is_told(cli, issue) -> None:
    lease = issue()["lease"]
    result = cli("lease", "revoke", lease, code=7)
    assert re.search(r"released +one +first +handed out no more; works until \d.*Z, in 59m", result.stdout)
    assert result.stderr == "1 of 1 lease could not be revoked.\n"
    assert [one["state"] for one in leases(cli)] == ["released"]


@pytest.mark.parametrize("mode", ["ok", "revocable"])
def test_what_was_taken_back_is_handed_out_no_more(cli, issue, mode) -> None:
    cli("connector", "update", "one", f"--mode={mode}", "--no-verify")
    lease = issue()["lease"]
    assert issue()["lease"] == lease
    cli("lease", "revoke", lease, code=None)
    assert issue()["lease"] != lease


def test_what_could_not_be_revoked_is_told_without_the_secret(cli, issue) -> None:
    cli("connector", "update", "one", "--mode=stubborn", "--no-verify")
    lease = issue()["lease"]
    result = cli("lease", "revoke", lease, code=7)
    assert "not revoked yet, and tried again; works until" in result.stdout
    shown = cli("lease", "show", lease)
    assert "1: bad ********" in shown.stdout
    outputs = [cli("lease", "show", lease, "-o", kind) for kind in ("json", "yaml")]
    outputs += [cli("lease", "list", "-o", "json"), cli("events", "-o", "json"), cli("events"), cli("audit", "list")]
    outputs += [cli("status"), cli("status", "-o", "json")]
    for one in (result, shown, *outputs):
        assert "t0ken-registered" not in one.output
        assert CANARY not in one.output


def test_revoke_by_filters(cli, issue) -> None:
    first, second = issue()["lease"], issue("-r", "acme-account", "--consumer", "job-7")["lease"]
    assert revoked(cli, "--resource", "first", code=7) == [(first, "released")]
    assert revoked(cli, "--consumer", "job-7", code=7) == [(second, "released")]
    assert cli("lease", "revoke", "--consumer", "nobody").stderr == "No lease matches.\n"


def test_from_one_consumer_alone(cli, issue) -> None:
    lease = issue()["lease"]
    issue(*FIRST, "--consumer", "job-7")
    result = cli("lease", "revoke", "--consumer", "job-7", code=7)
    assert "not counted as this consumer's any more; others hold it too, and it works until" in result.stdout
    (left,) = leases(cli)
    assert (left["id"], left["state"], len(left["holders"])) == (lease, "active", 1)


def test_role_wide(cli, wide) -> None:
    result = cli("lease", "revoke", wide[0], code=7)
    assert result.stderr.splitlines()[1].startswith("Note: with --role-wide they can be: all that was issued for the")
    assert sorted(revoked(cli, wide[0], "--role-wide")) == sorted((one, "revoked") for one in wide)


def test_a_vendor_that_refuses_to_revoke(cli, wide) -> None:
    cli("connector", "update", "broad", "--mode=refuse", "--no-verify")
    result = cli("lease", "revoke", "--connector", "broad", "--role-wide", code=4)
    assert result.stderr == "Error: acme does not let this token revoke; ask for the right\n"
    assert {one["state"] for one in leases(cli)} == {"active"}  # nobody tries that again by himself


def test_it_asks_on_a_terminal(cli, wide, asked) -> None:
    assert cli("lease", "revoke", "--connector", "broad", code=130).stderr == "Nothing was revoked.\n"
    assert cli("lease", "revoke", wide[0], "--role-wide", code=130).stderr == "Nothing was revoked.\n"
    assert cli("connector", "delete", "broad", "--revoke", code=130).stderr == "Nothing was deleted.\n"
    assert [one.partition("?")[0] for one in asked] == [
        "Revoke 2 leases of broad",
        "Revoke 1 lease of broad",
        "Delete the connector 'broad' (wide) and revoke what it has issued",
    ]
    assert " With --role-wide all that was issued for the same role" in asked[1]
    assert {one["state"] for one in leases(cli)} == {"active"}
    assert revoked(cli, wide[0], code=7) == [(wide[0], "released")]
    assert revoked(cli, "--connector", "broad", "--role-wide", "-y")
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("revoke",), "name a lease, or say whose: --connector, --resource, --consumer"),
        (("revoke", "--resource", ""), "'--resource': it is empty"),
        (("revoke", "--consumer="), "'--consumer': it is empty"),
        (("revoke", "--connector="), "'--connector': it is empty"),
        (("list", "--connector="), "'--connector': it is empty"),
        (("revoke", "12345678", "--connector", "one"), "leave --connector and --resource out"),
        (("revoke", "12345678"), "no lease is named '12345678'; see: mooring lease list"),
        (("revoke", ""), "an empty name stands for nothing"),
        (("revoke", "--connector", "onne"), "did you mean 'one'?"),
        (("list", "--connector", "onne"), "did you mean 'one'?"),
        (("list", "--state", "gone"), "'gone' is not one of"),
        (("list", "--state", "active", "--all"), "give one of them"),
        (("show", "1234"), "'1234' is too short for a lease; give 8 characters"),
        (("show",), "Missing argument"),
        (("renew", "00000000-no"), "no lease is named"),
        (("rvoke",), "did you mean 'revoke'?"),
    ],
)
def test_what_is_wrong(cli, issue, arguments, says) -> None:
    before = [issue()["lease"]]
    result = cli("lease", *arguments, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [one["id"] for one in leases(cli, "--state", "active")] == before


# connector delete --revoke


def test_delete_takes_back_what_it_has_issued(cli, issue) -> None:
    cli("connector", "update", "one", "--mode=revocable", "--no-verify")
    lease = issue()["lease"]
    result = cli("connector", "delete", "one", "--revoke")
    assert result.stderr == "Deleted the connector 'one'.\n"
    assert "does not work any more" in result.stdout
    assert [(one["id"], one["state"]) for one in leases(cli, "--all")] == [(lease, "revoked")]


def test_delete_says_what_still_works(cli, issue) -> None:
    lease = issue()["lease"]
    result = cli("connector", "delete", "one", "--revoke", code=7)
    assert result.stderr == "Deleted the connector 'one'.\n1 of 1 lease could not be revoked.\n"
    assert "handed out no more; works until" in result.stdout
    assert [(one["id"], one["state"]) for one in leases(cli, "--connector", "one")] == [(lease, "released")]
    assert json.loads(cli("connector", "list", "-o", "json").stdout) == []


def test_delete_keeps_a_connector_without_which_nothing_could_be_revoked(cli, issue) -> None:
    cli("connector", "update", "one", "--mode=stubborn", "--no-verify")
    issue()
    result = cli("connector", "delete", "one", "--revoke", code=7)
    assert result.stderr.startswith("Kept the connector 'one': what it has issued could not all be revoked")
    assert [one["state"] for one in leases(cli)] == ["revoking"]
    cli("connector", "update", "one", "--mode=revocable", "--no-verify")
    cli("connector", "delete", "one", "--revoke")


def test_delete_without_leases(cli, registered) -> None:
    result = cli("connector", "delete", "one", "--revoke")
    assert (result.stdout, result.stderr) == ("", "Deleted the connector 'one'.\n")
    assert "leave --revoke out" in cli("connector", "delete", "x", "--damaged", "--revoke", code=2).stderr


def test_completion_of_leases(cli, issue) -> None:
    lease = issue()["lease"]
    environment = {"_MOORING_COMPLETE": "bash_complete", "COMP_WORDS": "mooring lease show ", "COMP_CWORD": "3"}
    assert f"plain,{lease}" in cli(env=environment).stdout
    environment |= {"COMP_WORDS": "mooring events --type Breaker", "COMP_CWORD": "3"}
    assert cli(env=environment).stdout.split() == ["plain,BreakerClosed", "plain,BreakerOpened"]
