import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest

from mooring.cli._output import Table


def add(cli, name: str, *more: str) -> None:
    cli("connector", "register", name, "-t", "acme", "-a", "key", "--token=-", "--no-verify", *more, input="s3cret")


def test_resources_are_grouped_by_connector(cli) -> None:
    add(cli, "one")
    add(cli, "two", "-r", "acme-bucket")
    result = cli("connector", "list-resources")
    header, *rows = result.stdout.splitlines()
    for column in ("CONNECTOR ID", "CONNECTOR NAME", "CONNECTOR TYPE", "RESOURCE TYPE", "RESOURCE NAMES"):
        assert column in header
    assert [row.split()[-4:] for row in rows] == [
        ["one", "acme", "acme-account", "4711"],
        ["acme-bucket", "first"],
        ["second"],
        ["two", "acme", "acme-bucket", "first"],
        ["second"],
    ]
    assert result.stderr == ""  # no progress, no decoration


def test_a_failed_connector_has_its_error_in_its_row(cli) -> None:
    add(cli, "good", "-l", "team=ml")
    add(cli, "bad", "--mode=deny")
    result = cli("connector", "list-resources")
    (row,) = [line for line in result.stdout.splitlines() if " bad " in line]
    assert row.endswith("Error: acme does not accept the token; give another")
    assert " good " in result.stdout
    assert " bad " not in cli("connector", "list-resources", "--exclude-errors").stdout
    found = json.loads(cli("connector", "list-resources", "-o", "json").stdout)
    (bad,) = [one for one in found if one["connector"] == "bad"]
    assert bad["resources"] == []
    assert bad["errors"] == [
        {"unit": "", "error": "AuthFailed", "message": "acme does not accept the token; give another"}
    ]
    assert " bad " not in cli("connector", "list-resources", "--label", "team").stdout
    assert " bad " not in cli("connector", "list-resources", "--connector", "good").stdout
    assert " good " not in cli("connector", "list-resources", "-n", "bad", code=7).stdout


def test_all_failed_is_an_error_none_is_not(cli) -> None:
    assert json.loads(cli("connector", "list-resources", "-o", "json").stdout) == []
    add(cli, "bad", "--mode=deny")
    add(cli, "worse", "--mode=boom")
    assert "Error: " in cli("connector", "list-resources", code=7).stdout
    assert json.loads(cli("connector", "list-resources", "--exclude-errors", "-o", "json", code=7).stdout) == []


def test_filters(cli) -> None:
    add(cli, "one")
    names = cli("connector", "list-resources", "-r", "acme-bucket", "-i", "acme://second").stdout
    assert "second" in names
    assert "first" not in names
    assert "did you mean 'acme'?" in cli("connector", "list-resources", "-c", "acmee", code=2).stderr
    assert "did you mean 'acme-bucket'?" in cli("connector", "list-resources", "-r", "acme-buck", code=2).stderr
    assert "did you mean 'one'?" in cli("connector", "list-resources", "-n", "onee", code=2).stderr


def test_an_id_of_no_form_is_an_error_and_nothing_found_is_said(cli) -> None:
    listing = ("connector", "list-resources")
    assert "There is no connector; to make one" in cli(*listing).stderr
    add(cli, "one")
    result = cli(*listing, "-i", "bad??", code=2)
    assert result.stdout == ""
    assert result.stderr == "Error: no resource type has ids of this form; acme-bucket: NAME or acme://NAME\n"
    assert cli(*listing, "-r", "acme-bucket", "-i", "bad??", code=2).stderr.startswith(
        "Error: not an id of acme-bucket"
    )
    assert cli(*listing, "-i", "unheard").stderr == "Nothing was found.\n"
    add(cli, "data", "-r", "acme-bucket")
    assert cli(*listing, "-n", "data", "-i", "bad??", code=2).stderr.startswith("Error: not an id of acme-bucket")


def test_a_connector_that_was_named_and_left_out_is_told_why(cli) -> None:
    listing = ("connector", "list-resources", "-r", "acme-account")
    add(cli, "one", "-l", "team=ml")
    add(cli, "data", "-r", "acme-bucket")
    why = "connector 'data' is scoped to 'acme-bucket' and does not reach 'acme-account'"
    assert cli(*listing, "-n", "data", code=2).stderr == f"Error: {why}\n"
    result = cli(*listing, "-n", "data", "-n", "one")
    assert result.stderr == f"Note: {why}.\n"
    assert "4711" in result.stdout
    assert "does not have the label 'team' = 'ops'" in cli(*listing, "-n", "one", "-l", "team=ops", code=2).stderr
    assert cli(*listing, "-l", "team=ops").stderr == "No connector matches.\n"


def test_patterns_of_ids(cli) -> None:
    listing = ("connector", "list-resources", "-o", "json")
    add(cli, "one")

    def found(*patterns: str) -> list[str]:
        groups = json.loads(cli(*listing, *patterns).stdout)
        return [one["id"] for group in groups for one in group["resources"]]

    assert found("--match", "se*") == ["second"]
    assert found("-m", "4*", "-m", "f?rst") == ["4711", "first"]
    assert found("--match", "[!0-9]*", "-r", "acme-bucket") == ["first", "second"]
    result = cli("connector", "list-resources", "--match", "third*")
    assert result.stderr == "Nothing was found.\n"
    for bad, says in (
        ("", "an empty pattern"),
        ("a" * 1001, "1000 characters"),
        ("a[b", "has no ]"),
        ("[z-a]", "backwards"),
    ):
        result = cli(*listing, "--match", bad, code=2)
        assert result.stdout == ""
        assert result.stderr.startswith("Error: Invalid value for '-m' / '--match': ")
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_what_cannot_match_is_not_asked(cli) -> None:
    add(cli, "one", "--mode=deny")
    assert "Error: " in cli("connector", "list-resources", "--match", "no/*", code=7).stdout
    result = cli("connector", "list-resources", "--match", "no/*", "-r", "acme-account", "--stats")
    first, second = result.stderr.splitlines()
    assert first == "Nothing was found: none of the connectors can reach that, so none was asked."
    assert second.startswith("A pattern is of whole ids, such as 's3://team-*'; to see their forms: ")
    assert "0 units in 0." in result.stdout


def test_patterns_of_labels(cli) -> None:
    add(cli, "one", "-l", "team=data")
    add(cli, "two", "-l", "team=d[a]ta")
    add(cli, "three", "-l", "team=ops", "-l", "env=")

    def asked(*labels: str, code: int = 0) -> set[str]:
        options = [part for label in labels for part in ("--label", label)]
        result = cli("connector", "list-resources", *options, "-o", "json", code=code)
        return {one["connector"] for one in json.loads(result.stdout or "[]")}

    assert asked("team=da*") == {"one"}
    assert asked("team=d*") == {"one", "two"}
    assert asked("team=d[a]ta") == {"one", "two"}  # the second as it is written
    assert asked("team=data") == {"one"}
    assert asked("team=*", "env=*") == {"three"}
    assert asked("team=x*") == set()
    result = cli("connector", "list-resources", "-l", "team=d*", "-l", "team", code=2)
    assert result.stderr.endswith("the label 'team' is asked for twice; give one, its value may be a pattern\n")
    result = cli("connector", "list-resources", "-n", "three", "-l", "team=d*", code=2)
    assert "connector 'three' does not have the label 'team' = 'd*'" in result.stderr


def test_the_first_failure_ends_it(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SLOW", str(tmp_path / "slow"))
    add(cli, "south", "--regions", "south", "--regions", "north")
    add(cli, "waits", "--mode=wait")  # for a minute, and then it would answer
    listing = ("connector", "list-resources", "--fail-fast")
    result = cli(*listing, "-o", "json", code=7)
    groups = json.loads(result.stdout)
    assert {group["connector"] for group in groups} == {"south"}
    errors = [one for group in groups for one in group["errors"]]
    assert errors == [{"unit": "south", "error": "AccessDenied", "message": "acme does not show the south; ask for it"}]
    assert result.stderr == (
        "Ended at the first failure; this is what was found until then.\nNot answered yet: waits.\n"
    )
    assert "Error in south: acme does not show" in cli(*listing, code=7).stdout
    result = cli(*listing, "--exclude-errors", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: --fail-fast shows an error, --exclude-errors leaves it out; give one")
    add(cli, "good")
    assert cli(*listing, "-n", "good").stderr == ""


def test_a_unit_has_as_long_as_is_said(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SLOW", str(tmp_path / "slow"))
    add(cli, "waits", "--mode=wait")
    result = cli("connector", "list-resources", "--timeout", "1s", code=7)
    assert "longer than 1 s" in result.stdout
    result = cli("connector", "list-resources", "--timeout", "0", code=2)
    assert "longer than nothing" in result.stderr


def test_statistics(cli) -> None:
    add(cli, "one", "--regions", "south", "--regions", "north")
    add(cli, "bad", "--mode=leak")
    result = cli("connector", "list-resources", "--stats")
    table, _, after = result.stdout.partition("\nSlowest first\n")
    assert "RESOURCE NAMES" in table
    head, *rows, totals = after.splitlines()
    assert head.split("  ")[0] == "CONNECTOR"
    assert head.split()[-6:] == ["UNIT", "TOOK", "CALLS", "RETRIES", "WAITED", "FOUND"]
    assert sorted((row.split()[0], row.split()[-1]) for row in rows) == [
        ("bad", "Rejected"), ("one", "1"), ("one", "1"), ("one", "2"), ("one", "AccessDenied")
    ]  # fmt: skip
    tooks = [float(re.findall(r" (\d+\.\d{3})s ", row)[0]) for row in rows]
    assert tooks == sorted(tooks, reverse=True)
    assert re.fullmatch(r"5 units in \d+\.\d{3}s: 0 calls, 0 retries, 0\.000s waited", totals)
    assert "s3cret" not in result.output
    table, _, after = cli("connector", "list-resources", "--stats", "--exclude-errors").stdout.partition(
        "Slowest first"
    )
    assert "acme does not" not in table
    assert "Rejected" in after  # what has failed was asked too
    groups = json.loads(cli("connector", "list-resources", "--exclude-errors", "-o", "json").stdout)
    assert [group["errors"] for group in groups] == [[]] * len(groups)

    groups = json.loads(cli("connector", "list-resources", "--stats", "-o", "json").stdout)
    stats = {(group["connector"], group["resource_type"]): group["stats"] for group in groups}
    (first,) = [one for one in stats["one", "acme-bucket"] if one["unit"] == "north"]
    assert re.fullmatch(r"PT\d+(\.\d+)?S", first.pop("took"))
    assert first == {"unit": "north", "calls": 0, "retries": 0, "waited": "P0D", "count": 2, "error": None}
    assert [one["error"] for one in stats["bad", None]] == ["Rejected"]
    assert "stats" not in json.loads(cli("connector", "list-resources", "-o", "json").stdout)[0]


def test_the_slowest_unit_comes_first() -> None:
    from mooring.broker import Finished
    from mooring.broker._asking import Cost
    from mooring.cli._edge import Run
    from mooring.cli._reach import Reach
    from mooring.types import Connector

    reach, now = Reach(Run()), datetime.now(UTC)
    one = Connector(id="c" * 36, name="one", type="acme", auth_method="key", created_at=now, updated_at=now)
    for unit, seconds in (("b", 2), ("c", 0.5), ("a", 30)):
        cost = Cost(calls=3, retries=1, waited=timedelta(seconds=seconds / 2))
        about = {"resource_type": "acme-bucket", "unit": unit, "count": 4}
        reach._add(Finished(connector=one, took=timedelta(seconds=seconds), cost=cost, **about))
    assert [row[2:] for row in reach.stats().rows] == [
        ("a", "30.000s", "3", "1", "15.000s", "4"),
        ("b", "2.000s", "3", "1", "1.000s", "4"),
        ("c", "0.500s", "3", "1", "0.250s", "4"),
    ]
    assert reach.totals().endswith(": 9 calls, 3 retries, 16.250s waited")


def test_a_thousand_failures_are_a_readable_table(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in its row, in 80 columns, no word of it broken."""
    from mooring.broker import Failed
    from mooring.cli._edge import Run
    from mooring.cli._output import emit
    from mooring.cli._reach import Reach
    from mooring.errors import AuthFailed
    from mooring.types import Connector

    reach, now = Reach(Run()), datetime.now(UTC)
    for number in range(1000):
        id = f"{number:08x}-0000-0000-0000-000000000000"
        about = {"auth_method": "key", "created_at": now, "updated_at": now}
        connector = Connector(id=id, name=f"account-{number:04}", type="acme", **about)
        error = AuthFailed("acme does not accept the token; give another")
        reach._add(Failed(connector=connector, resource_type=None, unit="", error=error))
    monkeypatch.setenv("MOORING_COLUMNS", "80")
    with redirect_stdout(StringIO()) as stdout:
        emit("table", None, reach.table())
    head, *lines = stdout.getvalue().splitlines()
    assert (
        head.split() == ["ID", "NAME", "TYPE", "RESOURCE", "TYPE", "RESOURCE", "NAMES"] or "RESOURCE TYPE" not in head
    )
    assert max(map(len, lines)) <= 80
    names = [line.split()[1] for line in lines if "account-" in line]
    assert names == [f"account-{number:04}" for number in range(1000)]
    assert len(lines) <= 2000
    words = Counter(word for line in lines for word in line.split())
    assert {words[word] for word in ["Error:", "accept", "token;", "give", "another"]} == {1000}


@pytest.mark.parametrize(("output", "columns"), [("json", ""), ("yaml", ""), ("table", ""), ("table", "80")])
def test_many_resources_are_held_once(output: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing them takes a small part of the room that they take themselves."""
    from mooring.broker import Found
    from mooring.cli._edge import Run
    from mooring.cli._output import emit
    from mooring.cli._reach import Reach
    from mooring.types import Connector, Resource

    class Nowhere(StringIO):
        size = 0

        def write(self, text: str) -> int:
            Nowhere.size += len(text)
            return len(text)

    now = datetime.now(UTC)
    one = Connector(id="c" * 36, name="one", type="acme", auth_method="key", created_at=now, updated_at=now)
    monkeypatch.setenv("MOORING_COLUMNS", columns)
    count = 100_000 if output == "json" else 5_000  # the others take their time
    with redirect_stdout(Nowhere()):
        emit(output, [{}], Table(("NAME",), [("x",)]))  # what is loaded once
        tracemalloc.start()
        try:
            reach = Reach(Run())
            for number in range(count):
                resource = Resource(type="acme-bucket", id=f"a-bucket-{(number * 7919) % count:06}")
                reach._add(Found(connector=one, resource=resource))
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            emit(output, reach.data(), reach.table()) if output == "table" else emit(output, reach.data())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert Nowhere.size > count * len("a-bucket-000000")
    assert peak - held < 0.1 * held + 1_500_000


def test_verify_shows_who_and_what(cli, registered) -> None:
    result = cli("connector", "verify", "one")
    assert "accepted as  robot" in result.stdout
    assert "4711" in result.stdout
    assert "second" in result.stdout
    data = json.loads(cli("connector", "verify", "one", "-o", "json", "--verify-only").stdout)
    assert data["identity"] == {"subject": "robot", "account": "4711", "expires_at": None}
    assert "resources" not in data
    assert "second" not in cli("connector", "verify", "one", "-r", "acme-bucket", "-i", "first").stdout
    cli("connector", "update", "one", "--mode=deny", "--no-verify")
    assert cli("connector", "verify", "one", code=4).stderr == "Error: acme does not accept the token; give another\n"
    shown = cli("connector", "verify", "one", "--debug", code=4).stderr.splitlines()
    assert shown[-1] == "Where: verb verify, connector one, type acme"


def test_a_pipe_loads_nothing_that_draws(cli) -> None:
    add(cli, "one")
    arguments = ["connector", "list-resources", "--stats", "--cached", "-o", "json"]
    code = (
        f"import sys; sys.argv = ['mooring', *{arguments}]\nfrom mooring.cli import main\ntry: main()\n"
        "finally: print(*({'rich', 'yaml', 'httpx', 'mooring_aws'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr, len(json.loads(done.stdout))) == ("\n", 2)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interruption_shows_what_was_found(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SLOW", str(tmp_path / "slow"))
    add(cli, "quick")
    add(cli, "slow", "--mode=slow")
    command = [sys.executable, "-m", "mooring", "connector", "list-resources", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "slow").exists():
            time.sleep(0.05)
        time.sleep(0.5)  # for what the others say at once
        process.send_signal(signal.SIGINT)
        output, messages = process.communicate(timeout=20)
    found = {(one["connector"], one["resource_type"]): len(one["resources"]) for one in json.loads(output)}
    assert found == {
        ("quick", "acme-account"): 1,
        ("quick", "acme-bucket"): 2,
        ("slow", "acme-account"): 1,
        ("slow", "acme-bucket"): 1,
    }
    assert messages == "Interrupted; this is what was found until then.\n"
    assert process.returncode == 130


def test_patterns_choose_ids_and_labels(cli) -> None:
    add(cli, "one", "-l", "team=data")
    add(cli, "two", "-l", "team=dev", "-l", "tier=1")
    add(cli, "three")

    def found(*arguments: str) -> list[tuple[str, list[str]]]:
        data = json.loads(cli("connector", "list-resources", "-o", "json", *arguments).stdout)
        return [(one["connector"], [each["id"] for each in one["resources"]]) for one in data if one["resources"]]

    assert found("--match", "f*", "-n", "one") == [("one", ["first"])]
    assert found("--match", "f*", "-m", "471?", "-n", "one") == [("one", ["4711"]), ("one", ["first"])]
    assert {name for name, _ in found("-l", "team=da*")} == {"one"}
    assert {name for name, _ in found("-l", "team=d*")} == {"one", "two"}
    assert {name for name, _ in found("-l", "team=d*", "-l", "tier=[12]")} == {"two"}
    listed = json.loads(cli("connector", "list", "-l", "team=*v", "-o", "json").stdout)
    assert [one["name"] for one in listed] == ["two"]
    assert "an empty pattern matches nothing" in cli("connector", "list-resources", "--match", "", code=2).stderr


def test_fail_fast_ends_at_the_first_failure(cli) -> None:
    add(cli, "bad", "--mode=deny")
    add(cli, "slow", "--mode=slow")
    begun = time.monotonic()
    result = cli("connector", "list-resources", "--fail-fast", "-o", "json", code=7)
    assert time.monotonic() - begun < 30, "it waits for nobody"
    (bad,) = [one for one in json.loads(result.stdout) if one["connector"] == "bad"]
    assert [one["error"] for one in bad["errors"]] == ["AuthFailed"]
    assert "give one of them" in cli("connector", "list-resources", "--fail-fast", "--exclude-errors", code=2).stderr


def test_stats_say_what_each_unit_has_cost(cli) -> None:
    add(cli, "one")
    add(cli, "bad", "--mode=deny")
    data = json.loads(cli("connector", "list-resources", "--stats", "-o", "json").stdout)
    units = {(group["connector"], group["resource_type"]): group["stats"] for group in data}
    ((bucket,), (bad,)) = units["one", "acme-bucket"], units["bad", None]
    assert (bucket["count"], bucket["took"][:2], bad["error"]) == (2, "PT", "AuthFailed")
    assert {*bucket} >= {"unit", "calls", "retries", "waited"}
    table = cli("connector", "list-resources", "--stats").stdout
    assert "Slowest first" in table


def test_a_long_list_is_the_same_document_in_json_and_yaml(cli) -> None:
    import yaml

    add(cli, "one")
    add(cli, "two")
    as_json = json.loads(cli("connector", "list-resources", "-o", "json").stdout)
    assert yaml.safe_load(cli("connector", "list-resources", "-o", "yaml").stdout) == as_json
    assert [one["connector"] for one in as_json] == ["one", "one", "two", "two"]
