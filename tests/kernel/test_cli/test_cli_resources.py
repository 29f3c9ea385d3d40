import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


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
