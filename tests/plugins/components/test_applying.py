"""Configuration as code: checked whole, applied step by step, again without effect, on after a failure."""

from pathlib import Path
from typing import Any

import pytest

import mooring as m
import mooring_components as mc
from mooring.testing import Fake, memory_broker
from mooring_components.applying import export, plan
from mooring_components.documents import read, schema
from mooring_components.flavors import Flavor, flavorimpl

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


async def made(broker: m.Broker, path: Path, flavors: mc.Flavors | None = None) -> list[tuple[str, str, str]]:
    """Plan and apply; what was done."""
    planned = await plan(broker, read(path), path.parent, flavors)
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
            ("config.size", 2, 3), ("labels.team", "ml", None), ("labels.tier", None, "1"),
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
        ("{env: APPLY_KEY}", "{env: NOWHERE}", ":8: field 'key': not set in the environment: NOWHERE"),
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
        exported = await export(broker)
        assert CANARY not in repr(exported)
        found = exported.document
        assert found["connectors"]["one"]["config"] == {"size": 2, "key": {"env": "ONE_KEY"}}
        assert found["connectors"]["two"]["config"] == {"key": "{{shared.key}}"}
        assert found["stacks"] == {"all": ["files"]}
        assert found["components"]["files"] == {"type": "artifact-store", "flavor": "s3", "config": {"path": "s3://a"}}


class Bucket(m.Config):
    """Where."""

    path: str
    size: int = 1


class Declares:
    """A package that adds a flavor, and with it a component type."""

    @flavorimpl
    def mooring_flavors(self) -> list[Flavor]:
        types = ("artifact-store", "toy-box")
        return [
            Flavor(name="fake", component_types=types, config=Bucket, resource_type="bucket",
                   resource_id=lambda config: config.path),
            Flavor(name="any", component_types=types, config=m.Config, resource_type="bucket"),
        ]  # fmt: skip


FAKES = mc.Flavors([Declares()])
CONNECTED = """
connectors:
  one: {type: fake, auth_method: key, resource_type: bucket, resource_id: 'fake://a'}
  two: {type: fake, auth_method: key, resource_type: bucket, resource_id: b}
components:
  files: {type: artifact-store, flavor: fake, config: {path: a}, connector: one}
  named: {type: toy-box, flavor: fake, config: {path: z, size: 1}, connector: one, resource_id: a}
stacks:
  both: [files, named]
"""


async def test_another_connector_and_another_resource_are_one_change(written: Any) -> None:
    """The old connector does not reach the new resource, nor the new one the old."""
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker, FAKES)
        path = written(CONNECTED)
        assert len(await made(broker, path, FAKES)) == 5
        assert await made(broker, path, FAKES) == [], "size: 1 is the default, and no change"
        written(CONNECTED.replace("path: a}, connector: one", "path: b}, connector: two"))
        assert await made(broker, path, FAKES) == [("update", "component", "files")]
        assert components.resource(await components.get("files")) == "b"
        written(CONNECTED.replace("connector: one, resource_id: a", "connector: two, resource_id: b"))
        (_, step) = (await plan(broker, read(path), path.parent, FAKES)).changes
        assert [(one.field, one.before, one.after) for one in step.changes] == [
            ("connector", "one", "two"), ("resource_id", "a", "b")
        ]  # fmt: skip
        await made(broker, path, FAKES)
        found = (await export(broker)).document["components"]["named"]
        assert (found["connector"], found["resource_id"], found["config"]) == ("two", "b", {"path": "z"})


async def test_what_was_found_where_the_document_says_nothing_is_no_change(written: Any) -> None:
    document = """
connectors:
  one: {type: fake, auth_method: key}
components:
  any: {type: toy-box, flavor: any, connector: one}
"""
    async with memory_broker(Fake(resources={"bucket": ["a"], "cluster": ["c"]})) as broker:
        path = written(document)
        await made(broker, path, FAKES)
        assert (await mc.Components(broker, FAKES).get("any")).resource_id == "a"
        assert await made(broker, path, FAKES) == []


async def test_what_is_refused_half_way_of_a_change_changes_nothing(written: Any) -> None:
    async with memory_broker(Fake()) as broker:
        path = written(CONNECTED)
        await made(broker, path, FAKES)
        before = await mc.Components(broker, FAKES).get("files")
        written(CONNECTED.replace("path: a}, connector: one", "path: c}, connector: two"))
        with pytest.raises(m.UnsupportedResource, match=r"components.files: connector 'two' is scoped to 'b'"):
            await made(broker, path, FAKES)
        assert await mc.Components(broker, FAKES).get("files") == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("both: [files, named]", "both: []", ":9: stacks.both: a stack has at least one component"),
        ("both: [files, named]", "both: [files, files]", ":9: stacks.both: a stack has one artifact-store"),
        ("connector: one}", "resource_id: a}", "a resource is what a connector reaches; name the connector too"),
        ("connector: one}", "secret: word}", "a fake component takes no secret"),
        ("connector: one}", "connector: none}", "components.files: no connector is named 'none'"),
        ("connector: one}", 'connector: one, labels: {"": x}}', "components.files: a label's key and value are"),
        ("resource_id: b}", 'resource_id: b, labels: {"": x}}', ":4: connectors.two: a label's key and value are"),
        ("resource_id: b}", "resource_id: b, ttl: 99999d}", ":4: connectors.two: "),
        ("type: bucket, resource_id: b", "type: bukket, resource_id: b", ":4: connectors.two: "),
        ("path: a", "path: '{{word.kee}}'", "components.files: field 'path' refers to 'word.kee'"),
        ("path: a", "path: '{{ word . key }}'", "field 'path' has a reference that is none"),
        ("type: artifact-store", "type: artifact-stor", "no component type 'artifact-stor'; did you mean"),
        ("flavor: fake, config: {path: a}", "flavor: local", "there is no flavor 'local' of artifact-store"),
        (
            "type: artifact-store, flavor: fake, config: {path: a}",
            "type: orchestrator, flavor: local",
            "components.files: a local component needs no connector",
        ),
    ],
)
async def test_what_apply_would_refuse_is_no_plan(written: Any, old: str, new: str, says: str) -> None:
    assert old in CONNECTED
    for there in (False, True):
        async with memory_broker(Fake()) as broker:
            await broker.named_secrets.create("word", {"key": CANARY})
            if there:
                await made(broker, written(CONNECTED), FAKES)
            path = written(CONNECTED.replace(old, new, 1))
            with pytest.raises(m.MooringError) as caught:
                await plan(broker, read(path), path.parent, FAKES)
            assert says in caught.value.message
            assert CANARY not in caught.value.message


async def test_a_secret_is_exported_only_where_all_of_it_is_a_reference(written: Any) -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("db", {"user": "ann"})
        for name, key in (("a-b", f"{CANARY}{{{{db.user}}}}"), ("a_b", CANARY), ("1c", "{{db.user}}:{{db.user}}")):
            await broker.register(name, type="fake", auth_method="key", config={"key": key})
        exported = await export(broker)
        assert CANARY not in repr(exported)
        keys = {name: one["config"]["key"] for name, one in exported.document["connectors"].items()}
        assert keys == {"a-b": {"env": "A_B_KEY"}, "a_b": {"env": "A_B_KEY_2"}, "1c": "{{db.user}}:{{db.user}}"}
        path = written(DOCUMENT.replace("{env: APPLY_KEY}", f"'{CANARY}{{{{db.user}}}}'"))
        with pytest.raises(m.InvalidConfig, match="field 'key' is a secret, which is not written in clear") as caught:
            await made(broker, path)
        assert CANARY not in caught.value.message


async def test_a_component_whose_connector_was_deleted_is_told_of_and_connected_anew(written: Any) -> None:
    async with memory_broker(Fake()) as broker:
        path = written(CONNECTED)
        await made(broker, path, FAKES)
        await broker.delete("one", force=True)
        exported = await export(broker)
        assert exported.lost == ("files", "named")
        assert "connector" not in exported.document["components"]["files"]
        says = "the connector of component 'files' was deleted; connect it to another: mooring artifact-store connect"
        with pytest.raises(m.InvalidConfig, match=says):
            async with mc.open(broker, "files", flavors=FAKES):
                pass
        assert {one[1:] for one in await made(broker, path, FAKES)} == {
            ("connector", "one"), ("component", "files"), ("component", "named")
        }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is nothing in"),
        ("# a comment\n", "there is nothing in"),
        ("version: !!bool maybe", ":1: a number or date that cannot be"),
        ("version: !!int ''", ":1: a number or date that cannot be"),
        ("version: !!float ''", ":1: a number or date that cannot be"),
        ("version: !!timestamp x", ":1: a number or date that cannot be"),
        ("connectors: [1]", ":1: connectors: Expected `object`"),
        ("- 1", ": the document: Expected `object`"),
    ],
)
async def test_what_is_no_document(written: Any, text: str, says: str) -> None:
    with pytest.raises(m.InvalidConfig) as caught:
        read(written(text))
    assert says in caught.value.message


async def test_a_value_that_is_no_secret_may_be_kept_elsewhere_too(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "there")
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("shared", {"key": CANARY})
        path = written(DOCUMENT.replace("size: 2", "place: {env: PLACE}"))
        await made(broker, path)
        assert (await broker.get("one")).settings == {"place": "there"}


def test_the_schema_knows_every_key() -> None:
    made = schema()["$defs"]
    assert {"connectors", "components", "stacks", "version"} == set(made["Desired"]["properties"])
    assert mc.Flavors().types()
