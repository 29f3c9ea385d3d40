"""Configuration as code: checked whole, applied step by step, again without effect, on after a failure."""

from pathlib import Path
from typing import Any

import pytest

import mooring as m
import mooring_components as mc
from mooring.testing import Fake, memory_broker
from mooring_components.applying import export, plan
from mooring_components.documents import read, schema

pytestmark = pytest.mark.anyio
CANARY = "c4nary+p4ss/word=="
DOCUMENT = """\
version: 1
connectors:
  one:
    type: fake
    auth_method: key
    labels: {team: ml}
    config:
      key: {env: APPLY_KEY}
      size: 2
  two:
    type: fake
    auth_method: key
    config: {key: "{{shared.key}}"}
components:
  files:
    type: artifact-store
    flavor: s3
    config: {path: s3://a}
stacks:
  all: [files]
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("APPLY_KEY", CANARY)

    def write(text: str = DOCUMENT) -> Path:
        path = tmp_path / "mooring.yaml"
        path.write_text(text)
        return path

    return write


async def made(broker: m.Broker, path: Path) -> list[tuple[str, str, str]]:
    """Plan and apply; what was done."""
    planned = await plan(broker, read(path), path.parent)
    return [(one.action, one.kind, one.name) async for one in planned.apply()]


async def test_it_is_applied_once_and_then_only_what_differs(written: Any) -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("shared", {"key": CANARY})
        path = written()
        planned = await plan(broker, read(path), path.parent)
        assert CANARY not in repr(planned.steps)
        assert await broker.list() == []
        assert await made(broker, path) == [
            ("create", "connector", "one"), ("create", "connector", "two"), ("create", "component", "files"),
            ("create", "stack", "all"),
        ]  # fmt: skip
        assert (await broker.secrets("one"))["key"].reveal() == CANARY
        assert await made(broker, path) == []
        written(DOCUMENT.replace("team: ml", "tier: '1'").replace("size: 2", "size: 3").replace("s3://a", "s3://b"))
        (first, _, third, _) = (await plan(broker, read(path), path.parent)).steps
        assert [(one.field, one.before, one.after) for one in first.changes] == [
            ("labels.team", "ml", None), ("labels.tier", None, "1"), ("config.size", 2, 3),
        ]  # fmt: skip
        assert third.action == "update"
        assert len(await made(broker, path)) == 2
        assert await made(broker, path) == []
        assert (await broker.get("one")).labels == {"tier": "1"}


async def test_a_secret_that_changes_is_seen_and_never_shown(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("shared", {"key": CANARY})
        path = written()
        await made(broker, path)
        monkeypatch.setenv("APPLY_KEY", "another")
        (step, *_) = (await plan(broker, read(path), path.parent)).changes
        (change,) = step.changes
        assert (step.name, change.field, change.before, change.after) == ("one", "config.key", "********", "********")


async def test_what_fails_half_way_is_finished_by_the_next(written: Any) -> None:
    vendor = Fake()
    async with memory_broker(vendor) as broker:
        await broker.named_secrets.create("shared", {"key": CANARY})
        path = written()

        async def deny(_request: object) -> None:
            if vendor.calls["verify"] > 1:
                raise m.AccessDenied("no; ask for it")

        vendor.on["verify"] = deny
        with pytest.raises(m.AccessDenied, match=r"mooring.yaml:10: connectors.two: no; ask for it"):
            await made(broker, path)
        assert [one.name for one in await broker.list()] == ["one"]
        del vendor.on["verify"]
        assert len(await made(broker, path)) == 3


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "{env: APPLY_KEY}",
            CANARY,
            ":8: field 'key' is a secret, which is not written in clear; give it as {env: NAME}",
        ),
        ("{env: APPLY_KEY}", "{env: NOWHERE}", ":8: field 'key': the environment variable NOWHERE is not set"),
        ("{env: APPLY_KEY}", "{file: none}", ":8: field 'key': the file none cannot be read"),
        ("      size: 2", "      sise: 2", "connectors.one: unknown field 'sise'; did you mean 'size'"),
        ("    labels:", "    lables:", ":6: unknown key 'connectors.one.lables'; did you mean 'labels'"),
        ("  two:", "  one:", ":10: connectors.one is there twice"),
        ("flavor: s3", "flavor: s4", ":15: components.files: there is no flavor 's4'"),
        ("all: [files]", "all: [fils]", ":20: stacks.all: stack 'all' names a component 'fils'"),
        ("type: fake", "type: fak", ":3: connectors.one: "),
        ("{team: ml}", "{team: ml", "this is not YAML"),
        ("version: 1", "version: 2", ":1: version: this mooring reads version 1"),
        ("  two:", "  two/three:", ":10: connectors: 'two/three' is no name; it is letters"),
        ("size: 2", "size: 2026-13-45", ": a number or date that cannot be; quote it for a text"),
        ("{team: ml}", "&a {team: ml}\n    config: *a", ":7: an alias (*name) is not taken here"),
        ("size: 2", "size: x", "connectors.one: field 'size' is malformed"),
        ('"{{shared.key}}"', '"{{shared.kee}}"', ":10: connectors.two: field 'key' refers to 'shared.kee'"),
    ],
)
async def test_what_is_wrong_is_told_with_its_line_and_nothing_is_done(
    written: Any, old: str, new: str, says: str
) -> None:
    assert old in DOCUMENT
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("shared", {"key": CANARY})
        path = written(DOCUMENT.replace(old, new, 1))
        with pytest.raises(m.MooringError) as caught:
            await made(broker, path)
        assert says in caught.value.message
        assert CANARY not in caught.value.message
        assert "\n" not in caught.value.message
        assert await broker.list() == []


async def test_what_is_exported_is_what_was_applied_without_secrets(written: Any) -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("shared", {"key": CANARY})
        await made(broker, written())
        found = await export(broker)
        assert CANARY not in repr(found)
        assert found["connectors"]["one"]["config"] == {"size": 2, "key": {"env": "ONE_KEY"}}
        assert found["connectors"]["two"]["config"] == {"key": "{{shared.key}}"}
        assert found["stacks"] == {"all": ["files"]}
        assert found["components"]["files"] == {"type": "artifact-store", "flavor": "s3", "config": {"path": "s3://a"}}


def test_the_schema_knows_every_key() -> None:
    made = schema()["$defs"]
    assert {"connectors", "components", "stacks", "version"} == set(made["Desired"]["properties"])
    assert mc.Flavors().types()
