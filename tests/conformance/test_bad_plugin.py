"""The kit on a plugin that breaks the contract, one rule at a time: the check that is about it fails, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent

SUITE = """
import pytest
import mooring as m
from mooring.testing import ConnectorConformance, Subject
from bad import KINDS, opens

@pytest.fixture
def anyio_backend():
    return "asyncio"

class TestBad(ConnectorConformance):
    @pytest.fixture
    def subject(self):
        return Subject(
            plugin=KINDS["{kind}"](),
            auth_method="key",
            config={{"key": m.Secret("c4n4ry-of-the-kit")}},
            refused={{"key": m.Secret("c4n4ry-of-nobody")}},
            resource_type="bucket",
            resource_id="a",
            elsewhere="b",
            reaches=opens,
            sdks=("wave",),
        )
"""

BROKEN = {
    "Slow": ("test_describing_is_pure_and_fast", "describe() takes long"),
    "Heavy": ("test_describing_loads_no_sdk", "describing loads wave"),
    "Unsettled": ("test_the_canonical_form_is_one", "canonical() changes its own result"),
    "Raw": ("test_an_id_is_canonical_or_refused", "KeyError"),
    "Forgiving": ("test_what_the_vendor_refuses_is_an_error_of_ours", "DID NOT RAISE"),
    "Quoting": ("test_what_the_vendor_refuses_is_an_error_of_ours", "an error shows a secret"),
    "Twice": ("test_discovery_gives_declared_types_and_canonical_ids_once", "discover() gives a resource twice"),
    "Undeclared": ("test_discovery_gives_declared_types_and_canonical_ids_once", "not canonical"),
    "Foreign": ("test_what_is_discovered_is_found_again_by_its_id", "none of the type's ids 'fake-*'"),
    "Astray": ("test_what_is_discovered_is_found_again_by_its_id", "is not found where it is looked for"),
    "Longer": ("test_credentials_end_as_asked", "a shorter ttl is not honoured"),
    "Wide": ("test_credentials_open_their_resource_and_no_other", "narrowed credentials open another resource"),
    "Chatty": ("test_no_secret_shows", "a secret of the connector shows"),
    "Unkept": ("test_what_is_revocable_is_revoked", "nothing is kept in the undo log"),
    "Lingering": ("test_what_is_revocable_is_revoked", "credentials still work"),
    "Sweeping": ("test_what_is_revocable_is_revoked", "another consumer's credentials are gone too"),
    "Resolving": ("test_the_endpoint_is_pure", "endpoint() makes a call: socket.getaddrinfo"),
    "Wavering": ("test_the_endpoint_is_pure", "endpoint() gives something else each time"),
    "Laden": ("test_the_endpoint_is_pure", "endpoint() loads wave"),
    "Telling": ("test_the_endpoint_is_pure", "endpoint() shows a secret"),
    "Leaving": ("test_cancelled_anywhere_it_leaves_nothing", "a cancelled call leaves a task behind"),
    "Single": ("test_many_callers_at_once", "failed in verify"),
}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))

    def run(kind: str, check: str = "") -> pytest.RunResult:
        pytester.makepyfile(test_suite=SUITE.format(kind=kind))
        plain = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")  # CPython 3.11 may die of the latter's hooks
        return pytester.runpytest_subprocess("-q", *plain, *(("-k", check) if check else ()))

    return run


def test_a_good_plugin_passes_every_check(suite) -> None:
    outcome = suite("Good").parseoutcomes()
    assert outcome["passed"] > 20
    assert not outcome.keys() & {"failed", "errors", "skipped"}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_rule_fails_its_check_for_that_reason(suite, kind: str) -> None:
    check, reason = BROKEN[kind]
    result = suite(kind, check)
    assert result.parseoutcomes().get("failed"), result.stdout.str()
    assert reason in result.stdout.str()
