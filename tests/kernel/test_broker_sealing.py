"""What the seal binds: a record that was altered around its secrets does not open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.store import MemoryStore
from mooring.testing import example, memory_broker
from mooring.vault import Vault, parse_keys

pytestmark = pytest.mark.anyio
KEY = "k1:" + "A" * 43 + "="


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"user": "mallory"}},
        {"settings": {"user": "u", "buckets": ["c"]}},
        {"resource_type": "example-bucket", "resource_id": "b"},
        {"resource_type": None, "resource_id": None},
        {"allow_unnarrowed": True},
        {"allow_long_lived": True},
        {"sealed": None, "settings": {"user": "mallory"}},
    ],
)
async def test_an_altered_record_does_not_open(change: dict[str, Any]) -> None:
    store, vault = MemoryStore(), Vault(parse_keys(KEY, "the test"))
    async with memory_broker(example, store=store, vault=vault) as broker:
        config = {"user": "u", "password": "p"}
        await broker.register("mine", type="example", config=config, resource_type="example-bucket", resource_id="a")
        await broker.issue("mine")
        stored = await broker.get("mine")
        await store.replace(msgspec.structs.replace(stored, **change, version=stored.version + 1))
    async with memory_broker(example, store=store, vault=vault) as broker:
        for call in (
            broker.verify("mine"),
            broker.secrets("mine"),
            broker.issue(
                "mine", resource_type="example-bucket", resource_id=(await broker.get("mine")).resource_id or "a"
            ),
            broker.update("mine", config={"user": "u"}),
            broker.update("mine", auth_method="password", config={"password": "q"}),
        ):
            with pytest.raises(m.Tampered):
                await call
    assert (await store.find("mine")).version == stored.version + 1  # type: ignore[union-attr]


async def test_what_says_nothing_of_the_secrets_is_not_bound() -> None:
    async with memory_broker(example) as broker:
        await broker.register("mine", type="example", config={"user": "u", "password": "p"})
        await broker.update("mine", name="yours", description="d", labels={"a": "b"}, owner="bob")
        assert (await broker.secrets("yours"))["password"].reveal() == "p"
        assert (await broker.get("yours")).owner == "bob"


async def test_a_lost_key_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    settings, store = Settings(home=tmp_path / "home"), MemoryStore()
    options: dict[str, Any] = {"settings": settings, "store": store, "plugins": [example], "system_plugins": []}
    config = {"user": "u", "password": "p"}
    async with open_broker(**options) as broker:
        assert not settings.key_file.exists()
        sealed = await broker.register("mine", type="example", config=config)
        assert sealed.sealed is not None
    kept = settings.key_file.read_bytes()
    settings.key_file.unlink()
    async with open_broker(**options) as broker:
        for call in (
            broker.verify("mine"),
            broker.secrets("mine"),
            broker.update("mine", config={"password": "q"}),
            broker.register("other", type="example", config=config),
            broker.register("open", type="example", config={"user": "u"}),
        ):
            with pytest.raises(m.NoMasterKey, match="restore"):
                await call
        assert not settings.key_file.exists()
        await broker.update("mine", description="a label needs no key", verify=False)
        with pytest.raises(m.NoMasterKey, match=sealed.sealed.key_id):
            await broker.register("other", type="example", config=config)
        settings.key_file.touch(mode=0o600)
        settings.key_file.write_bytes(kept)
        assert (await broker.secrets("mine"))["password"].reveal() == "p"
