"""Named secrets and other documents: kept as connectors are, referred to from configurations, resolved only at use."""

from datetime import timedelta

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mooring as m
from mooring.assembly import Settings
from mooring.broker import Failed, Found
from mooring.errors import InUse, InvalidConfig, NameTaken, StoreConflict, UnknownConnector, UnknownDocument
from mooring.references import DEEPEST, MEANT, references, resolve
from mooring.store import open_sqlite
from mooring.testing import Fake, ManualClock, memory_broker, powered

pytestmark = pytest.mark.anyio
CANARY = "c4nary+p4ss/word=="
A = {"resource_type": "bucket", "resource_id": "a"}


class Seeing(Fake):
    """Remembers what it was configured with."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str] = []

    @m.hookimpl
    async def issue_credentials(self, session, request):
        self.tokens.append(session.config.key.reveal())
        return m.BearerToken(
            token=m.Secret(CANARY), expires_at=session.context.clock.now() + timedelta(hours=1), narrowed=True
        )


async def test_what_is_sealed_is_shown_to_nobody_but_who_opens_it() -> None:
    async with memory_broker(Fake()) as broker:
        made = await broker.named_secrets.create("db", {"user": "ann", "password": CANARY})
        assert (made.name, made.fields, made.body) == ("db", ("password", "user"), {})
        assert [one.name for one in await broker.named_secrets.list()] == ["db"]
        assert (await broker.named_secrets.get(made.id[:8])).id == made.id
        values = await broker.named_secrets.open("db")
        assert {key: one.reveal() for key, one in values.items()} == {"user": "ann", "password": CANARY}
        actions = [line.entry.action async for line in broker.audit()]
        assert actions == ["create secret", "open secret"]
        assert CANARY not in repr([made, values, await broker.logged(after=0)])


async def test_a_secret_is_no_connector_and_a_connector_no_secret() -> None:
    async with memory_broker(Fake()) as broker:
        secret = await broker.named_secrets.create("db", {"user": "ann"})
        await broker.register("one", type="fake", auth_method="key", config={"key": "t"})
        assert [one.name for one in await broker.list()] == ["one"]
        for name in ("db", "secret/db", secret.id):
            with pytest.raises(UnknownConnector):
                await broker.get(name)
            with pytest.raises(UnknownConnector):
                await broker.issue(name, **A)
        for name in ("one", (await broker.get("one")).id):
            with pytest.raises(UnknownDocument, match="no secret is named"):
                await broker.named_secrets.get(name)
        async with broker.discover() as replies:
            assert {reply.connector.name async for reply in replies} == {"one"}


async def test_a_reference_is_stored_as_it_is_and_resolved_when_it_is_used() -> None:
    vendor = Seeing()
    async with memory_broker(vendor, clock=ManualClock()) as broker:
        await broker.named_secrets.create("db", {"word": CANARY, "whole": "<{{db.word}}>"})
        await broker.register("one", type="fake", auth_method="key", config={"key": "{{db.whole}}"})
        assert {key: one.reveal() for key, one in (await broker.secrets("one")).items()} == {"key": "{{db.whole}}"}
        await broker.issue("one", **A)
        assert vendor.tokens == [f"<{CANARY}>"]
        await broker.issue("one", **A)
        assert len(vendor.tokens) == 1, "served again"
        await broker.named_secrets.update("db", {"word": "new"})
        await broker.issue("one", **A)
        assert vendor.tokens == [f"<{CANARY}>", "<new>"], "what the old one issued is served no more"


async def test_what_is_referred_to_is_not_deleted_unless_forced() -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("db", {"word": CANARY})
        await broker.named_secrets.create("app", {"url": "x://{{ db.word }}@host"})
        await broker.register("one", type="fake", auth_method="key", config={"key": "{{app.url}}"})
        with pytest.raises(InUse, match=r"secret 'db' is used by connector one, secret app; "):
            await broker.named_secrets.delete("db")
        await broker.named_secrets.delete("db", force=True)
        with pytest.raises(UnknownDocument, match="no secret is named 'db', which a configuration refers to"):
            await broker.issue("one", **A)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"key": "{{db.wrd}}"},
            "field 'key' refers to 'db.wrd', but the secret has no such key; did you mean",
        ),
        ({"key": "{{dbb.word}}"}, "no secret is named 'dbb'"),
        ({"key": "{{ring.a}}"}, "refers to itself in the end: ring.a -> ring.b -> ring.a"),
    ],
)
async def test_what_cannot_be_resolved_is_not_registered(values: dict[str, str], says: str) -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("db", {"word": CANARY})
        ring = {"a": m.Secret("{{ring.b}}"), "b": m.Secret("{{ring.a}}")}
        await broker.documents("secret").add("ring", {}, secrets=ring)
        with pytest.raises((InvalidConfig, UnknownDocument)) as caught:
            await broker.register("one", type="fake", auth_method="key", config=values)
        assert says in caught.value.message
        assert CANARY not in repr(caught.value) + caught.value.message
        assert await broker.list() == []


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("a/b", {"k": "v"}, "a secret's name is"),
        ("a", {}, "holds at least one key"),
        ("a", {"k": ""}, "the value of key 'k' is empty"),
        ("a", {"1k": "v"}, "the key '1k' is none"),
        ("db", {"k": "v"}, "a secret named 'db' exists already"),
    ],
)
async def test_what_is_no_secret(name: str, values: dict[str, str], says: str) -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("db", {"user": "ann"})
        with pytest.raises((InvalidConfig, NameTaken), match=says):
            await broker.named_secrets.create(name, values)
        assert [one.name for one in await broker.named_secrets.list()] == ["db"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"a": "{{new.b}}", "b": "{{new.a}}"}, "refers to itself in the end: new.b -> new.a -> new.b"),
        ({"a": "{{other.word}}"}, "no secret is named 'other'"),
        ({"a": "{{db.wrd}}"}, "field 'a' refers to 'db.wrd', but the secret has no such key"),
        ({"a": "{{db.word}}" * 1001}, "field 'a' leads to more than 1000 references"),
    ],
)
async def test_a_secret_whose_references_lead_nowhere_is_not_written(values: dict[str, str], says: str) -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("db", {"word": CANARY})
        with pytest.raises((InvalidConfig, UnknownDocument)) as caught:
            await broker.named_secrets.create("new", values)
        assert says in caught.value.message
        assert [one.name for one in await broker.named_secrets.list()] == ["db"]
        await broker.named_secrets.create("new", {"kept": CANARY})
        with pytest.raises((InvalidConfig, UnknownDocument)) as caught:
            await broker.named_secrets.update("new", values)
        assert says in caught.value.message
        assert (await broker.named_secrets.get("new")).fields == ("kept",)


async def test_a_key_that_another_key_refers_to_is_not_removed() -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("db", {"word": CANARY, "whole": "<{{db.word}}>"})
        with pytest.raises(InvalidConfig, match=r"'whole' refers to 'db\.word'"):
            await broker.named_secrets.update("db", {"word": None})
        assert (await broker.named_secrets.get("db")).fields == ("whole", "word")


async def test_a_name_is_no_id() -> None:
    """One would be read, changed or deleted in the place of the other."""
    async with memory_broker(Fake()) as broker:
        made = await broker.named_secrets.create("db", {"word": CANARY})
        with pytest.raises(InvalidConfig, match="a secret's name is no id"):
            await broker.named_secrets.create(made.id, {"word": "another"})
        with pytest.raises(InvalidConfig, match="a connector's name is no id"):
            await broker.register(made.id, type="fake", auth_method="key")


async def test_settings_refer_to_secrets_wherever_ids_are_read() -> None:
    async with memory_broker(powered) as broker:
        await broker.named_secrets.create("db", {"who": "a"})
        await broker.register("one", type="example", config={"user": "{{db.who}}"}, resource_id="_")
        stored = await broker.get("one")
        assert (stored.settings, stored.resource_id) == ({"user": "{{db.who}}"}, "a")
        about = {"resource_type": "example-bucket", "resource_id": "_"}
        assert (await broker.issue("one", **about)).resource_id == "a"
        assert "a" in repr(await broker.explain("one", **about))
        await broker.verify("one", **about)
        assert [one.name for one in await broker.list(**about)] == ["one"]
        async with broker.discover(**about) as replies:
            assert {one.resource.id async for one in replies if isinstance(one, Found)} == {"a"}
        await broker.named_secrets.delete("db", force=True)
        assert [one.name for one in await broker.list(**about)] == ["one"], "asking it tells what is wrong"
        async with broker.discover(**about) as replies:
            (failed,) = [one async for one in replies if isinstance(one, Failed)]
        assert "no secret is named 'db'" in failed.error.message


async def test_what_a_deleted_secret_has_issued_is_served_no_more() -> None:
    async with memory_broker(Seeing()) as broker:
        await broker.named_secrets.create("db", {"word": CANARY})
        await broker.register("one", type="fake", auth_method="key", config={"key": "{{db.word}}"})
        await broker.issue("one", **A)
        await broker.named_secrets.delete("db", force=True)
        with pytest.raises(UnknownDocument, match="no secret is named 'db'"):
            await broker.issue("one", **A)


@pytest.mark.parametrize("kind", ["", "../x", "Secret", "a/b"])
async def test_what_is_no_kind_of_document(kind: str) -> None:
    async with memory_broker(Fake()) as broker:
        with pytest.raises(InvalidConfig, match="a kind of documents is a word"):
            broker.documents(kind)


@pytest.mark.parametrize("body", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
async def test_what_json_does_not_have_is_no_document(body: dict[str, object]) -> None:
    async with memory_broker(Fake()) as broker:
        made = await broker.documents("thing").add("x", {})
        for write in (broker.documents("thing").add("y", body), broker.documents("thing").replace(made, body=body)):
            with pytest.raises(InvalidConfig, match="a document holds what JSON has"):
                await write
        for labels in ({"a": 1}, {"": "x"}, {"a": "\x1b"}):
            with pytest.raises(InvalidConfig, match="a label's key and value are"):
                await broker.documents("thing").replace(made, labels=labels)
        assert await broker.documents("thing").list() == [made]


async def test_keys_are_set_and_removed_and_one_stays() -> None:
    async with memory_broker(Fake()) as broker:
        await broker.named_secrets.create("db", {"user": "ann", "word": CANARY})
        assert (await broker.named_secrets.update("db", {"user": None, "host": "h"})).fields == ("host", "word")
        with pytest.raises(InvalidConfig, match="at least one key"):
            await broker.named_secrets.update("db", {"host": None, "word": None})
        with pytest.raises(InvalidConfig, match="no key 'user' to remove"):
            await broker.named_secrets.update("db", {"user": None})
        assert (await broker.named_secrets.get("db")).version == 2


async def test_documents_of_a_plugin_are_kept_apart_and_conflicts_are_told() -> None:
    async with memory_broker(Fake()) as broker:
        parts = broker.documents("part")
        made = await parts.add("x", {"path": "s3://a", "n": [1, None]}, labels={"team": "ml"})
        assert (made.body, made.labels, made.fields) == ({"path": "s3://a", "n": [1, None]}, {"team": "ml"}, ())
        await broker.named_secrets.create("x", {"k": "v"})
        changed = await parts.replace(made, body={"path": "s3://b"})
        assert (changed.version, changed.body, changed.labels) == (2, {"path": "s3://b"}, {"team": "ml"})
        for stale in (parts.replace(made, body={}), parts.delete(made)):
            with pytest.raises(StoreConflict, match="part 'x' was changed since it was read"):
                await stale
        await parts.delete(changed)
        assert (await parts.list(), len(await broker.named_secrets.list())) == ([], 1)


async def test_who_uses_a_connector_keeps_it() -> None:
    async with memory_broker(Fake()) as broker:
        one = await broker.register("one", type="fake", auth_method="key", config={"key": "t"})

        async def users(kind: str, id: str) -> list[str]:
            return ["part x"] if (kind, id) == ("connector", one.id) else []

        broker.before_delete(users)
        with pytest.raises(InUse, match="connector 'one' is used by part x; "):
            await broker.delete("one")
        assert await broker.delete("one", force=True)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_they_are_rotated_and_backed_up_with_the_connectors(tmp_path) -> None:
    settings = Settings(home=tmp_path)
    async with m.open_broker(settings=settings, plugins=[Fake()], system_plugins=()) as broker:
        await broker.named_secrets.create("db", {"word": CANARY})
        await broker.rotate_keys()
        await broker.back_up(tmp_path / "copy.backup")
        await broker.named_secrets.delete("db")
        await broker.restore(tmp_path / "copy.backup", replace=True)
        assert (await broker.named_secrets.open("db"))["word"].reveal() == CANARY
    async with open_sqlite(settings.store_file):
        pass
    assert CANARY.encode() not in settings.store_file.read_bytes()


async def test_references_are_resolved_to_a_depth_and_no_further() -> None:
    async def read(name: str) -> dict[str, m.Secret]:
        depth = int(name[1:])
        return {"k": m.Secret(f"{{{{s{depth + 1}.k}}}}" if depth < 40 else "end")}

    with pytest.raises(InvalidConfig, match="refers to itself in the end"):
        await resolve({"x": "{{s1.k}}"}, read)
    assert (await resolve({"x": f"{{{{s{41 - DEEPEST}.k}}}}"}, read)) == {"x": "end"}


@given(st.text(alphabet="{}ab.- \n1", max_size=40))
def test_what_is_no_reference_stays_as_it_is(text: str) -> None:
    async def read(name: str) -> dict[str, m.Secret]:
        return {key: m.Secret("*") for key in ("a", "b", "ab", "ba", "aa", "bb")} | Every()

    if references(text) or not MEANT.search(text):
        resolved = anyio.run(resolve, {"x": text}, read)["x"]
        assert (resolved == text) == (not references(text))


class Every(dict):
    """Has every key."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: str) -> m.Secret:
        return m.Secret("*")

    def __ror__(self, other: dict) -> "Every":
        return self
