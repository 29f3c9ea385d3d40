"""Components: registered, connected by the connector that reaches what they need, kept from what would break them."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest

import mooring
import mooring as m
import mooring_components as mc
from mooring.assembly import Settings
from mooring.testing import Fake, memory_broker
from mooring_components.flavors import Flavor, flavorimpl

pytestmark = pytest.mark.anyio
KEYS = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "c4nary+p4ss/word=="}


class Bucket(m.Config):
    """Where."""

    path: str


class Perhaps(m.Config):
    """Where, or anywhere."""

    path: str | None = None


@asynccontextmanager
async def issued(opening: mc.Opening) -> AsyncGenerator[m.Issued, None]:
    """What the connector issues, in place of a client."""
    yield await opening.broker.issue(
        opening.connector,
        resource_type=opening.resource_type,
        resource_id=opening.resource_id,
        access=opening.access,
        consumer=opening.consumer,
    )


class Declares:
    """A package that adds a flavor, and with it a component type."""

    @flavorimpl
    def mooring_flavors(self) -> list[Flavor]:
        return [
            Flavor(
                name="fake",
                component_types=("artifact-store", "toy-box"),
                config=Bucket,
                resource_type="bucket",
                resource_id=lambda config: config.path,
                open=issued,
            ),
            Flavor(
                name="any",
                component_types=("toy-box",),
                config=Perhaps,
                resource_type="bucket",
                resource_id=lambda config: config.path,
                open=issued,
            ),
        ]


FLAVORS = mc.Flavors([Declares()])


async def test_the_only_connector_that_fits_is_taken_and_what_it_issues_is_opened() -> None:
    vendor = Fake()
    async with memory_broker(vendor) as broker:
        one = await broker.register("one", type="fake", auth_method="key", resource_type="bucket")
        await broker.register("other", type="fake", auth_method="key", resource_type="cluster")
        components = mc.Components(broker, FLAVORS)
        await components.register("store", type="artifact-store", flavor="fake", config={"path": "a"})
        with pytest.raises(m.InvalidConfig, match="is not connected; run: mooring artifact-store connect store"):
            async with mc.open(broker, "store", flavors=FLAVORS):
                pass
        made, asked = await components.connect("store")
        assert (made.connector_id, components.resource(made), [each.connector.name for each in asked]) == (
            one.id,
            "a",
            ["one"],
        )
        async with mc.open(broker, "store", flavors=FLAVORS) as client:
            assert (client.resource_id, client.consumer) == ("a", "component/store")
        (lease,) = await broker.leases(consumer="component/store")
        assert (lease.resource_id, lease.access) == ("a", "write")


async def test_several_that_fit_are_named_and_none_is_told_why() -> None:
    vendor = Fake()
    async with memory_broker(vendor) as broker:
        components = mc.Components(broker, FLAVORS)
        await components.register("store", type="artifact-store", flavor="fake", config={"path": "a"})
        with pytest.raises(m.UnsupportedResource, match="no connector reaches what 'store' needs"):
            await components.connect("store")
        for name in ("one", "two"):
            await broker.register(name, type="fake", auth_method="key")
        with pytest.raises(m.InvalidConfig, match="several connectors reach what 'store' needs: one, two"):
            await components.connect("store")

        async def deny(_request: object) -> None:
            raise m.AccessDenied("no right to see it; ask for one")

        vendor.on["verify"] = deny
        with pytest.raises(m.UnsupportedResource, match=r"one: no right to see it; ask for one; two: "):
            await components.connect("store")
        assert (await components.get("store")).connector_id is None


async def test_registering_with_a_connector_that_does_not_reach_it_leaves_nothing() -> None:
    vendor = Fake()
    async with memory_broker(vendor) as broker:
        await broker.register("one", type="fake", auth_method="key", resource_type="cluster")
        components = mc.Components(broker, FLAVORS)
        with pytest.raises(m.UnsupportedResource):
            await components.register("x", type="toy-box", flavor="fake", config={"path": "a"}, connector="one")
        assert await components.list() == []


async def test_what_is_used_is_not_deleted_and_an_update_reaches_all() -> None:
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker, FLAVORS)
        broker.before_delete(components.users)
        one = await broker.register("one", type="fake", auth_method="key")
        await components.register("x", type="artifact-store", flavor="fake", config={"path": "a"}, connector="one")
        await broker.update("one", name="renamed")
        assert (await components.get("x")).connector_id == one.id
        with pytest.raises(m.InUse, match="connector 'renamed' is used by artifact-store x; "):
            await broker.delete("renamed")
        await components.add_stack("all", ["x"])
        with pytest.raises(m.InUse, match="component 'x' is in use by stack all"):
            await components.delete("x")
        await components.delete_stack("all")
        await components.delete("x")
        await broker.delete("renamed")


async def test_a_change_connects_anew_and_leaves_alone_what_was_named() -> None:
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker, FLAVORS)
        await broker.register("one", type="fake", auth_method="key")
        about = {"type": "artifact-store", "flavor": "fake", "config": {"path": "a"}, "connector": "one"}
        await components.register("usual", **about)
        await components.register("named", **about, resource_id="b")
        for name, resource in (("usual", "c"), ("named", "b")):
            assert components.resource(await components.configure(name, {"path": "c"})) == resource


async def test_a_secret_serves_instead_where_the_flavor_takes_one() -> None:
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker)
        broker.before_delete(components.users)
        await broker.named_secrets.create("half", {"aws_access_key_id": "AKIA"})
        await broker.named_secrets.create("keys", KEYS)
        about = {"type": "artifact-store", "flavor": "s3", "config": {"path": "s3://a"}}
        with pytest.raises(m.InvalidConfig, match="lacks aws_secret_access_key"):
            await components.register("x", **about, secret="half")
        with pytest.raises(m.UnknownDocument):
            await components.register("x", **about, secret="none")
        made = await components.register("x", **about, secret="keys")
        assert made.secret == "keys"
        with pytest.raises(m.InUse, match="secret 'keys' is used by artifact-store x; "):
            await broker.named_secrets.delete("keys")
        with pytest.raises(m.InvalidConfig, match="takes no secret"):
            await components.register(
                "y", type="container-registry", flavor="docker", config={"uri": "host"}, secret="keys"
            )


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"type": "artifact-stor", "flavor": "s3"}, "no component type 'artifact-stor'; did you mean 'artifact-store'"),
        ({"type": "artifact-store", "flavor": "s33"}, "no flavor 's33' of artifact-store; did you mean 's3'"),
        ({"type": "artifact-store", "flavor": "s3", "config": {}}, "field 'path' is required"),
        *(
            (
                {"type": "artifact-store", "flavor": "s3", "config": {"path": path}},
                r"malformed: it is to be s3://BUCKET",
            )
            for path in ("gs://a", "a", "s3://", "s3:///", "s3://a\n", "s3://a b")
        ),
    ],
)
async def test_what_is_no_component(about: dict[str, object], says: str) -> None:
    async with memory_broker(Fake()) as broker:
        with pytest.raises(m.InvalidConfig, match=says):
            await mc.Components(broker).register("x", **about)


async def test_a_stack_opens_all_at_once_and_has_one_of_a_type() -> None:
    async with memory_broker(Fake()) as broker:
        await broker.register("one", type="fake", auth_method="key")
        components = mc.Components(broker, FLAVORS)
        for name, kind in (("x", "artifact-store"), ("y", "toy-box"), ("z", "toy-box")):
            await components.register(name, type=kind, flavor="fake", config={"path": "a"}, connector="one")
        with pytest.raises(m.InvalidConfig, match="a stack has one toy-box"):
            await components.add_stack("all", ["x", "y", "z"])
        await components.add_stack("all", ["y", "x"])
        async with mc.open_stack(broker, "all", flavors=FLAVORS) as opened:
            assert list(opened) == ["artifact-store", "toy-box"]
        await components.disconnect("y")
        with pytest.raises(m.InvalidConfig, match="toy-box 'y': component 'y' is not connected"):
            async with mc.open_stack(broker, "all", flavors=FLAVORS):
                pass


async def test_a_stack_is_changed_and_what_is_deleted_by_force_leaves_it() -> None:
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker, FLAVORS)
        for name, kind in (("x", "artifact-store"), ("y", "toy-box"), ("z", "toy-box")):
            await components.register(name, type=kind, flavor="fake", config={"path": "a"})
        await components.add_stack("all", ["x", "y"])
        for wrong in (["x", "y", "z"], ["x", "x"], []):
            with pytest.raises(m.InvalidConfig, match="a stack has "):
                await components.put_stack("all", wrong)
        await components.put_stack("all", ["z", "x"])
        await components.delete("x", force=True)
        assert [one.name for one in (await components.stack("all"))[1]] == ["z"]


async def test_fields_may_refer_to_secrets_which_are_in_use_then() -> None:
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker, FLAVORS)
        broker.before_delete(components.users)
        await broker.named_secrets.create("where", {"path": "a"})
        await broker.register("one", type="fake", auth_method="key")
        about = {"type": "artifact-store", "flavor": "fake", "config": {"path": "{{where.path}}"}}
        made = await components.register("x", **about, connector="one")
        assert (made.config, components.resource(made)) == ({"path": "{{where.path}}"}, "{{where.path}}")
        async with mc.open(broker, "x", flavors=FLAVORS) as client:
            assert client.resource_id == "a"
        await broker.named_secrets.update("where", {"path": "b"})
        async with mc.open(broker, "x", flavors=FLAVORS) as client:
            assert client.resource_id == "b"
        with pytest.raises(m.InUse, match="secret 'where' is used by artifact-store x"):
            await broker.named_secrets.delete("where")


async def test_a_secret_is_known_by_its_name_however_it_was_named_and_may_be_taken_away() -> None:
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker)
        broker.before_delete(components.users)
        made = await broker.named_secrets.create("keys", KEYS)
        about = {"type": "artifact-store", "flavor": "s3", "config": {"path": "s3://a"}}
        assert (await components.register("x", **about, secret=made.id[:8])).secret == "keys"
        with pytest.raises(m.InUse):
            await broker.named_secrets.delete("keys")
        assert (await components.disconnect("x")).secret is None
        assert (await components.configure("x", {}, secret="keys")).secret == "keys"
        await broker.named_secrets.update("keys", {"aws_access_key_id": None})
        with pytest.raises(m.InvalidConfig, match="the secret 'keys' lacks aws_access_key_id"):
            async with mc.open(broker, "x"):
                pass
        with pytest.raises(m.InvalidConfig, match="access is one of"):
            async with mc.open(broker, "x", access="admin"):
                pass


async def test_a_record_that_makes_no_sense_can_be_deleted() -> None:
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker)
        await broker.documents("component").add("x", {"type": 5})
        await broker.documents("stack").add("s", {})
        for reading in (components.get("x"), components.list(), components.stack("s"), components.delete("x")):
            with pytest.raises(m.errors.StoreCorrupt, match="cannot be read; delete and register it again"):
                await reading
        await components.delete_stack("s")
        await components.delete("x")
        assert await components.list() == []


def test_a_record_that_cannot_be_read_is_told_of_beside_the_others(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)

    async def fill() -> None:
        async with mooring.open_broker(settings=settings) as broker:
            components = mc.Components(broker)
            for name in ("x", "y"):
                await components.register(name, type="orchestrator", flavor="local")
            await components.add_stack("s", ["x"])
            await broker.named_secrets.create("db", KEYS)

    anyio.run(fill)
    with closing(sqlite3.connect(settings.store_file, isolation_level=None)) as connection:
        connection.execute("UPDATE connectors SET settings = '{' WHERE name IN ('component/x', 'stack/s', 'secret/db')")
    environment = os.environ | {"MOORING_HOME": str(tmp_path)}
    for command in ("component list", "orchestrator list", "stack list", "secret list", "export"):
        done = subprocess.run(
            [sys.executable, "-m", "mooring", *command.split()],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 5, (command, done)
        assert "Error: " in done.stderr
        assert "cannot be read" in done.stderr or "damaged" in done.stderr, done.stderr
        assert ("y" in done.stdout.split()) == (command in ("component list", "orchestrator list"))
        assert (done.stdout == "") == (command == "export")


async def test_what_no_plugin_reaches_is_said_so() -> None:
    async with memory_broker(Fake()) as broker:
        components = mc.Components(broker)
        await components.register("x", type="artifact-store", flavor="azure-blob", config={"path": "az://a"})
        with pytest.raises(m.UnsupportedResource, match="no installed connector type reaches a blob-container"):
            await components.connect("x")


async def test_several_resources_are_named_where_one_is_to_be_chosen() -> None:
    """A component that says none could never be opened."""
    async with memory_broker(Fake(resources={"bucket": ["a", "b"], "cluster": ["c"]})) as broker:
        await broker.register("one", type="fake", auth_method="key")
        components = mc.Components(broker, FLAVORS)
        about = {"type": "toy-box", "flavor": "any", "connector": "one"}
        with pytest.raises(m.InvalidConfig, match="reaches several resources: a, b; name one with --resource-id"):
            await components.register("x", **about)
        assert (await components.register("x", **about, resource_id="b")).resource_id == "b"


async def test_the_only_resource_is_taken_and_stays_until_something_says_another() -> None:
    vendor = Fake(resources={"bucket": ["a"], "cluster": ["c"]})
    async with memory_broker(vendor) as broker:
        await broker.register("one", type="fake", auth_method="key")
        components = mc.Components(broker, FLAVORS)
        made = await components.register("x", type="toy-box", flavor="any", connector="one")
        assert components.resource(made) == "a"
        vendor.resources["bucket"] = ["a", "b"]
        assert (await components.put("x", config={}, connector="one", labels={"team": "ml"})).resource_id == "a"
        made = await components.configure("x", {"path": "b"})
        assert (made.resource_id, components.resource(made)) == (None, "b")


async def test_two_packages_of_one_flavor_are_a_conflict() -> None:
    with pytest.raises(m.PluginConflict, match="declare the flavor 'fake'"):
        mc.Flavors([Declares(), Declares()]).types()
