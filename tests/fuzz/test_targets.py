"""Each target by examples and a short run that is the same every time; and that no parser is without a target."""

from __future__ import annotations

import ast
import importlib
import random
import time
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from near import SLIPS
from run import as_test, fuzz
from targets import TARGETS, Target

SOURCES = [
    Path(__file__).parents[2] / folder
    for folder in (
        "kernel/src",
        "plugins/aws/src",
        "plugins/components/src",
        "plugins/docker/src",
        "plugins/kubernetes/src",
    )
]

READING = {"fromisoformat", "fromtimestamp", "b64decode", "urlsafe_b64decode", "loads", "convert", "urlsplit",
           "isdigit", "parsedate_to_datetime", "fullmatch"}  # fmt: skip
"""What parsers are made of. Beside these, `decode` of msgspec."""

ELSEWHERE: dict[str, str] = {
    # name: what tests it
    "mooring.testing._conformance:ConnectorConformance.test_describing_loads_no_sdk": "it reads what it has written",
    "mooring.broker._documents:Documents.__init__": "tests/kernel/test_named_secrets.py: what is no kind",
    "mooring_components.applying:_variable": "tests/plugins/components/test_applying.py: names that are alike",
    "mooring.broker._secrets:check_key": "tests/kernel/test_named_secrets.py",
    "mooring.cli._guided:Guide.choose": "tests/kernel/test_cli/test_guided.py: numbers that are none",
    "mooring.cli._completion:complete_resource": "test_cli_secrets.py: ids that a shell would obey",
    "mooring.cli._audit:verify": "tests/kernel/test_cli/test_cli_audit.py: what is no digest",
    "mooring.cli._environment:sound": "tests/kernel/test_cli/test_exec.py",
    "mooring.broker._audit:read": "tests/kernel/test_audit.py: entries that were changed",
    "mooring_kubernetes.way:endpoint_of": "tests/plugins/kubernetes/test_settings.py",
    "mooring.cli._shells:dotenv": "tests/kernel/test_cli/test_shells.py, with any text",
    "mooring.testing._conformance:ConnectorConformance.test_the_endpoint_is_pure": "it reads what it has written",
    "mooring_aws.endpoints:host_of": "tests/plugins/aws/test_settings.py",
    "mooring_aws.ids:account_of_session": "tests/plugins/aws/test_calls.py: whose keys a store says that it makes",
    "mooring_components.components:_component": "tests/plugins/components/test_components.py: a damaged record",
    "mooring.store._findings:SqliteFindings.found": "tests/kernel/test_findings.py: damaged records",
    "mooring.store._findings:SqliteFindings._looks": "tests/kernel/test_findings.py: damaged records",
    "mooring_aws.ids:account_of_key": "tests/plugins/aws/test_session.py: whose limits a call counts against",
    "mooring_aws.cloud:Cloud.call": "tests/plugins/aws/test_settings.py: an endpoint is checked before it is called",
    "mooring_docker.session:RegistrySession._get": "tests/plugins/docker/test_verify.py: how many calls remain",
    "mooring_aws.revoke:_time_of": "tests/plugins/aws/test_revoke.py: dates that cannot be",
    "mooring_aws.login:login": "tests/plugins/aws/test_login.py",
    "mooring_kubernetes.session:KubernetesSession.ask": "tests/plugins/kubernetes/test_session.py",
    "mooring_kubernetes.issue:undo": "tests/plugins/kubernetes/test_issue.py",
    "mooring_kubernetes.tls:proxy_of": "tests/plugins/kubernetes/test_session.py",
    "mooring.broker._backup:_sweep": "tests/kernel/test_backup.py: names of scratch files of ours",
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_properties_hold(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds:
        target.check(seed)
    as_test(
        target,
        lambda _: None,
        max_examples=10 if target.slow else 40,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )()


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.large])
def test_a_long_input_takes_no_longer_than_its_length(name: str) -> None:
    """The bound is about hanging: in quadratic time a mebibyte takes many minutes."""
    target = TARGETS[name]
    assert target.large is not None
    for piece in ("a", "1", "-1", "a-1/", "=,", "\n", " User: arn:aws:iam::a", "[", *SLIPS[-6:]):
        value = target.large(piece * ((1 << 20) // len(piece)))
        begun = time.monotonic()
        target.check(value)
        assert time.monotonic() - begun < 20, f"{name} of {piece!r} repeated"


@pytest.mark.parametrize("name", TARGETS)
def test_the_parsers_of_the_table_are_there(name: str) -> None:
    for parser in TARGETS[name].parsers:
        module, _, path = parser.partition(":")
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        assert callable(found)


def reads(function: ast.AST) -> bool:
    """Whether a function calls what parsers are made of."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    names = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    names |= {call.id for call in calls if isinstance(call, ast.Name)}
    decoded = {ast.unparse(call) for call in calls} & {"msgspec.json.decode", "msgspec.msgpack.decode"}
    return bool(names & READING or decoded)


def functions(module: str, tree: ast.Module) -> list[tuple[str, ast.AST]]:
    """The functions of a module and its classes, by name."""
    found: list[tuple[str, ast.AST]] = []
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        before = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        found += [
            (f"{module}:{before}{one.name}", one)
            for one in inner
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    return found


def test_every_parser_has_a_target() -> None:
    known = {parser for target in TARGETS.values() for parser in target.parsers} | ELSEWHERE.keys()
    lacking = []
    for source in SOURCES:
        for path in sorted(source.rglob("*.py")):
            module = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
            tree = ast.parse(path.read_text(encoding="utf-8"))
            lacking += [name for name, function in functions(module, tree) if reads(function) and name not in known]
    assert lacking == [], "give each a target in tests/fuzz/targets.py, or say in ELSEWHERE what tests it"


def test_the_runner_shrinks_what_it_finds() -> None:
    def check(text: str) -> str:
        assert len(text) < 3
        return "taken"

    target = Target(parsers=(), inputs=hypothesis.strategies.text(), check=check)
    with pytest.raises(AssertionError) as caught:
        fuzz(target, 20, random.Random(1))
    assert any("value='000'" in note for note in caught.value.__notes__)
