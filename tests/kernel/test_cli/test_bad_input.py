"""Whatever is written wrongly: one line, its exit code, nothing stored, nothing quoted that may be a secret."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

CANARY = "c4nary-pa55word"
DIGITS = "9" * 5000
REGISTER = ("connector", "register")
ACME = (*REGISTER, "new", "-t", "acme", "-a", "key", "--no-verify")
GOOD = (*ACME, "--token=-")
ISSUE = ("issue", "one", "-r", "acme-bucket")
SPAN = "not a duration; write it like 15m, 1h30m, 900s or 2d"


class Case(NamedTuple):
    """What is written, and what comes of it."""

    arguments: tuple[str, ...]
    says: str
    code: int = 2
    environment: dict[str, str] = {}  # noqa: RUF012
    input: str = CANARY


NAMES = [
    Case(("conector", "list"), "no command 'conector'; did you mean 'connector'?"),
    Case(("connector", "lst"), "no command 'lst'; did you mean 'list'?"),
    Case(
        ("connector", "list", "--lable", CANARY),
        "No such option '--lable'. (Did you mean one of: '--label', '--name', '--page'?)",
    ),
    Case(("connector", "list", CANARY), "1 argument too many; see: mooring connector list --help"),
    Case(("connector", "describe", "one", CANARY, CANARY), "2 arguments too many; see: mooring connector describe"),
    Case(("connector", "describe", "onne"), "no connector is named 'onne'; did you mean 'one'?"),
    Case(("connector", "describe", "x" * 300), "no connector is named"),
    Case(("connector", "describe", "o\nne"), "no connector is named"),
    Case(("connector", "describe", "\u202eeno"), "no connector is named"),
    Case(("connector", "describe", ""), "no connector is named ''"),
    Case(("connector", "delete", "onne", "--yes"), "did you mean 'one'?"),
    Case(("connector", "verify", "onne"), "did you mean 'one'?"),
    Case(("connector", "update", "onne", "--port=1"), "did you mean 'one'?"),
    Case(("issue", "onne"), "did you mean 'one'?"),
    Case(("explain", "onne"), "did you mean 'one'?"),
    Case(("connector", "list-resources", "-n", "onne"), "did you mean 'one'?"),
    Case(("connector", "describe-type", "acne"), "did you mean 'acme'?"),
    Case(("connector", "list-types", "-t", "acne"), "did you mean 'acme'?"),
    Case((*REGISTER, "new", "-t", "acne"), "did you mean 'acme'?"),
    Case((*REGISTER, "new", "-t", "acme", "-a", "kee"), "did you mean 'key'?"),
    Case((*GOOD, "-r", "acme-bukket"), "did you mean 'acme-bucket'?"),
    Case(("issue", "one", "-r", "acme-bukket", "-i", "a"), "did you mean 'acme-bucket'?"),
    Case(("connector", "list-resources", "-r", "acme-bukket"), "did you mean 'acme-bucket'?"),
    Case((*ISSUE, "-i", "a", "--format", CANARY[:3]), "are not written as"),
    Case((*ISSUE, "-i", "a", "--access", "own"), "'--access'"),
    Case((*ISSUE, "-i", "a", "-o", "jsn"), "use one of: json, yaml, lines, env"),
    Case(("connector", "list", "-o", "jsn"), "'-o' / '--output'"),
    Case(("completion", "csh"), "'csh' is not one of"),
]

IDS = [
    Case((*ISSUE, "-i", "bad??"), "not an id of acme-bucket; write NAME or acme://NAME"),
    Case((*GOOD, "-r", "acme-bucket", "--resource-id", "bad??"), "not an id of acme-bucket"),
    Case((*GOOD, "--resource-id", "a"), ""),
    Case((*REGISTER, "-i", "--tokken=-", "-t", "acme"), "no such option or field: --tokken; did you mean '--token'?"),
    Case((*REGISTER, "new", "-t", "acme", "-i", CANARY), "1 argument too many"),
    Case(("connector", "update", "one", "-r", "acme-bucket", "-i", "bad??"), "not an id of acme-bucket"),
    Case(("connector", "verify", "one", "-r", "acme-bucket", "-i", "bad??"), "not an id of acme-bucket"),
    Case(("connector", "list-resources", "-i", "bad??"), "no resource type has ids of this form"),
    Case(("connector", "list", "-i", "bad??"), "no resource type has ids of this form"),
]

NUMBERS = [
    *(Case((*ISSUE, "-i", "a", "--ttl", text), SPAN) for text in (DIGITS, f"{DIGITS}d", CANARY, "-5m", "1.5h", "")),
    *(Case((*GOOD, "--ttl", text), SPAN) for text in (DIGITS, CANARY)),
    *(Case((*GOOD, "--expires-skew", text), SPAN) for text in (DIGITS, CANARY)),
    Case((*ISSUE, "-i", "a", "--ttl", "0"), "a duration here is longer than nothing"),
    Case((*GOOD, "--ttl", "999999999d"), "at most ten years"),
    *(Case((*GOOD, "--expires-at", text), "not a date and time") for text in (DIGITS, CANARY, "2099-13-01")),
    *(Case((*GOOD, "--port", text), "field 'port'") for text in (DIGITS, CANARY, "1e999", "\u0661")),
    Case(("connector", "update", "one", "--port", DIGITS), "field 'port'"),
    Case(("connector", "update", "one", "--ttl", DIGITS), SPAN),
]

TEXTS = [
    Case((*REGISTER, name, *GOOD[3:]), "name")
    for name in ("", " ", "a\nb", "a\x1b[31mb", "\u202ea", "x" * 300, "a\x00b")
] + [
    Case((*REGISTER, "\udcff", *GOOD[3:]), "argument 3 is not text in the encoding of this locale"),
    Case((*REGISTER, "one", *GOOD[3:]), "a connector named 'one' exists"),
    Case(("connector", "update", "one", "--name", "two"), "a connector named 'two' exists"),
    Case(("connector", "update", "one", "--name", "a\nb"), "name"),
    Case((*GOOD, "-l", CANARY), "a label is written key=value"),
    Case((*GOOD, "-l", f"={CANARY}"), "a label is written key=value"),
    *(Case((*GOOD, "-l", f"{key}=v"), "label") for key in ("a\nb", "\u202ea", "x" * 300)),
    Case((*GOOD, "two"), "1 argument too many"),
    Case((*GOOD, "--backup-token=-"), "cannot both be read from standard input"),
    Case((*ACME, "--token"), "option --token needs a value"),
    Case((*ACME, "--tokne", CANARY), "did you mean '--token'?"),
    Case((*ACME, "--role", CANARY), "--role is a field of the auth method 'role'"),
    Case((*ACME, "--token", f"@/nonexistent/{CANARY}"), "the file for field 'token' cannot be read"),
    Case((*ACME, "--token", f"@~nosuchuser/{CANARY}"), "the file for field 'token' cannot be read"),
    Case(GOOD, "there is nothing", input=""),
    Case(ACME, "field 'token' is required"),
]

SURROUNDINGS = [
    Case(("connector", "list"), "the user whom MOORING_HOME names is not known", 2, {"MOORING_HOME": "~nosuch/x"}),
    Case(("doctor",), "the user whom MOORING_HOME names is not known", 2, {"MOORING_HOME": "~nosuch/x"}),
    Case(("connector", "list"), "cannot be opened", 5, {"MOORING_HOME": "/dev/null"}),
    *(
        Case(("connector", "list-types"), "MOORING_COLUMNS is not a number of columns", 2, {"MOORING_COLUMNS": text})
        for text in ("0", "-5", "99999999999", "abc", "²", "80 ")
    ),
    *(
        Case(("connector", "list"), "MOORING_STORE is no URL", 5, {"MOORING_STORE": text})
        for text in (CANARY, ":", f"sec:{CANARY}")
    ),
    Case(("connector", "list"), "of the scheme 'nowhere'", 5, {"MOORING_STORE": f"nowhere://u:{CANARY}@host/x"}),
    Case(("connector", "list"), "MOORING_ALLOW_IMPLICIT is neither", 2, {"MOORING_ALLOW_IMPLICIT": CANARY}),
    Case(GOOD, "MOORING_MASTER_KEY", 6, {"MOORING_MASTER_KEY": CANARY}),
    Case(GOOD, "MOORING_MASTER_KEY", 6, {"MOORING_MASTER_KEY": f"k1:{CANARY}"}),
]

KEYS = ("--aws-access-key-id=AKIAIOSFODNN7EXAMPLE", "--aws-secret-access-key=-", "--region=eu-west-1")
ROLE = "--role-arn=arn:aws:iam::123456789012:role/r"
WEB = (ROLE, "--region=eu-west-1", "--web-identity-token-file=/var/run/token")
METHODS = {
    "secret-key": KEYS,
    "sts-token": ("--aws-access-key-id=ASIAIOSFODNN7EXAMPLE", *KEYS[1:], "--aws-session-token=t0ken"),
    "iam-role": (*KEYS, ROLE),
    "session-token": KEYS,
    "federation-token": KEYS,
    "web-identity": WEB,
    "implicit": ("--region=eu-west-1",),
}


def aws(method: str, *fields: str) -> tuple[str, ...]:
    return (*REGISTER, "new", "-t", "aws", "-a", method, "--no-verify", *fields)


def of_methods() -> list[Case]:
    cases = []
    for method, fields in METHODS.items():
        for number, field in enumerate(fields):
            name = field[2:].partition("=")[0].replace("-", "_")
            says = "give one of the fields" if "web_identity" in name else f"field {name!r} is required"
            cases.append(Case(aws(method, *fields[:number], *fields[number + 1 :]), says))
        cases += [
            Case(aws(method, *fields, "--regoin", CANARY), "did you mean '--region'?"),
            Case(aws(method, *fields, f"--region={CANARY}"), "field 'region'"),
            Case(aws(method, *fields[:-1], *(f for f in fields[-1:] if "region" not in f), "--region=?"), "field 'reg"),
            Case(aws(method, *fields, "--endpoint-url", CANARY), "endpoint_url"),
            Case(aws(method, *fields, "--no-such-field", CANARY), "no such option or field: --no-such-field"),
        ]
    return cases


def checked(case: Case, code: int, stdout: str, stderr: str) -> None:
    error = stderr.splitlines()[-1] if stderr else ""
    warnings = [
        line for line in stderr.splitlines() if line.startswith("Warning: what is given")
    ]  # of a secret in clear
    assert (code, stdout) == (case.code, ""), stderr
    assert stderr.splitlines() == [*warnings, error]
    assert error.startswith("Error: ")
    assert case.says in error
    assert "unexpected" not in error
    assert error.isprintable()
    assert CANARY not in stderr
    assert DIGITS not in stderr


@pytest.mark.parametrize("case", [*NAMES, *IDS, *NUMBERS, *TEXTS, *SURROUNDINGS])
def test_what_is_wrong_is_said_in_one_line(cli, registered, monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    cli(*REGISTER, "two", *GOOD[3:], input="t0ken")
    before = cli("connector", "list", "-o", "json").stdout
    with monkeypatch.context() as patch:
        for name, value in case.environment.items():
            patch.setenv(name, value)
        result = cli(*case.arguments, code=case.code, input=case.input)
    checked(case, result.exit_code, result.stdout, result.stderr)
    assert cli("connector", "list", "-o", "json").stdout == before


@pytest.mark.parametrize("case", of_methods())
def test_fields_of_every_auth_method_of_aws(cli, monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    pytest.importorskip("mooring_aws")
    monkeypatch.setenv("MOORING_ALLOW_IMPLICIT", "1")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    result = cli(*case.arguments, code=case.code, input=case.input)
    checked(case, result.exit_code, result.stdout, result.stderr)
    assert json.loads(cli("connector", "list", "-o", "json").stdout) == []


@pytest.mark.parametrize("method", METHODS)
def test_the_fields_are_good_where_nothing_is_wrong(cli, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    pytest.importorskip("mooring_aws")
    monkeypatch.setenv("MOORING_ALLOW_IMPLICIT", "1")
    cli(*aws(method, *METHODS[method]), input="s3cret")
    assert [one["auth_method"] for one in json.loads(cli("connector", "list", "-o", "json").stdout)] == [method]


@pytest.mark.parametrize("name", ["\N{ROCKET}", "Zürich", "a b", "x" * 100])
def test_names_that_are_good(cli, name: str) -> None:
    result = cli(*REGISTER, name, *GOOD[3:], input="t0ken", code=None)
    if result.exit_code == 0:
        assert json.loads(cli("connector", "describe", name, "-o", "json").stdout)["name"] == name
    else:
        checked(Case((), "name"), result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize("case", [NAMES[0], IDS[0], NUMBERS[0], TEXTS[2], SURROUNDINGS[0], SURROUNDINGS[3]])
def test_the_same_in_a_process(acme, registered, home: Path, case: Case) -> None:
    before = (home / "mooring.db").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "mooring", *case.arguments],
        env=os.environ | case.environment, input=case.input, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    checked(case, done.returncode, done.stdout, done.stderr)
    assert (home / "mooring.db").read_bytes() == before
