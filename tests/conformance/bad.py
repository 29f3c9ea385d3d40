"""Connectors that break the contract, each in one way, and one that does not."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
import time
import uuid
from datetime import timedelta

import anyio
import anyio.lowlevel
from msgspec.structs import replace

import mooring as m
from mooring.testing import Fake

REVOKED = set()
"""The tokens that the vendor takes no more."""


async def opens(issued, resource_id):
    token = issued.credentials.token.reveal()
    return token.rpartition(":")[2] in ("*", resource_id) and token.split(":")[1] not in REVOKED


class Good(Fake):
    @m.hookimpl
    def describe(self):
        found = super().describe()
        methods = tuple(replace(method, revocable=True) for method in found.auth_methods)
        return replace(found, auth_methods=methods)

    @m.hookimpl
    def endpoint(self, config):
        return "vendor.example.org"

    @m.hookimpl
    async def verify(self, session, request):
        if session.config.key.reveal() != "c4n4ry-of-the-kit":
            raise m.AuthFailed("the vendor does not know this key; set another")
        await anyio.lowlevel.checkpoint()
        return m.Identity(subject="me")

    @m.hookimpl
    async def issue_credentials(self, session, request):
        await anyio.lowlevel.checkpoint()
        name, ends = str(uuid.uuid4()), session.context.clock.now() + request.ttl
        entry = await session.context.undo.begin({"token": name})
        await session.context.undo.keep(entry, ends)
        token = m.Secret(f"issued-c4n4ry:{name}:{request.resource_id}")
        return m.BearerToken(token=token, expires_at=ends, narrowed=True)

    @m.hookimpl
    async def undo(self, session, step):
        REVOKED.add(step["token"])


class Slow(Good):
    @m.hookimpl
    def describe(self):
        time.sleep(0.2)
        return super().describe()


class Heavy(Good):
    @m.hookimpl
    def describe(self):
        importlib.import_module("wave")  # it stands for an SDK
        return super().describe()


class Unsettled(Good):
    @m.hookimpl
    def canonical(self, resource_type, text):
        return super().canonical(resource_type, text) + "x"


class Raw(Good):
    @m.hookimpl
    def canonical(self, resource_type, text):
        return text.encode().decode().split("//")[-1] or {}[text]


class Forgiving(Good):
    @m.hookimpl
    async def verify(self, session, request):
        return m.Identity(subject="me")


class Quoting(Good):
    @m.hookimpl
    async def verify(self, session, request):
        if session.config.key.reveal() != "c4n4ry-of-the-kit":
            raise m.AuthFailed("the vendor does not know " + session.config.key.reveal())
        return m.Identity(subject="me")


class Twice(Good):
    @m.hookimpl
    async def discover(self, session, request):
        for name in ("a", "b", "a"):
            yield m.Resource(type=request.resource_type, id=name)


class Foreign(Good):
    @m.hookimpl
    def describe(self):
        found = super().describe()
        kinds = tuple(replace(kind, ids="fake-*") for kind in found.resource_types)
        return replace(found, resource_types=kinds)


class Astray(Good):
    @m.hookimpl
    async def units(self, session, resource_type):
        return (m.Unit(name="here", ids="here/*"),)


class Undeclared(Good):
    @m.hookimpl
    async def discover(self, session, request):
        yield m.Resource(type=request.resource_type, id="fake://a/")


class Longer(Good):
    @m.hookimpl
    async def issue_credentials(self, session, request):
        ends = session.context.clock.now() + timedelta(hours=6)
        return m.BearerToken(token=m.Secret(f"issued-c4n4ry:x:{request.resource_id}"), expires_at=ends, narrowed=True)


class Wide(Good):
    @m.hookimpl
    async def issue_credentials(self, session, request):
        ends = session.context.clock.now() + request.ttl
        return m.BearerToken(token=m.Secret("issued-c4n4ry:x:*"), expires_at=ends, narrowed=True)


class Chatty(Good):
    @m.hookimpl
    async def issue_credentials(self, session, request):
        logging.getLogger("vendor").debug("signing with %s", session.config.key.reveal())
        return await super().issue_credentials(session, request)


class Leaving(Good):
    @m.hookimpl
    async def verify(self, session, request):
        self.tasks = [*getattr(self, "tasks", []), asyncio.ensure_future(asyncio.sleep(3600))]
        return await super().verify(session, request)


class Alone(Good):
    busy = False

    @m.hookimpl
    async def issue_credentials(self, session, request):
        if self.busy:
            raise RuntimeError("one at a time")
        self.busy = True
        try:
            await anyio.sleep(0.01)
            return await super().issue_credentials(session, request)
        finally:
            self.busy = False


class Single(Good):
    busy = 0

    @m.hookimpl
    async def verify(self, session, request):
        self.busy += 1
        try:
            await anyio.sleep(0.01)
            if self.busy > 1:
                raise RuntimeError("one at a time")
            return await super().verify(session, request)
        finally:
            self.busy -= 1


class Unkept(Good):
    @m.hookimpl
    async def issue_credentials(self, session, request):
        ends = session.context.clock.now() + request.ttl
        token = m.Secret(f"issued-c4n4ry:{uuid.uuid4()}:{request.resource_id}")
        return m.BearerToken(token=token, expires_at=ends, narrowed=True)


class Lingering(Good):
    @m.hookimpl
    async def undo(self, session, step):
        pass


class Sweeping(Good):
    @m.hookimpl
    async def undo(self, session, step):
        REVOKED.update(self.made)

    @m.hookimpl
    async def issue_credentials(self, session, request):
        issued = await super().issue_credentials(session, request)
        self.made = [*getattr(self, "made", []), issued.token.reveal().split(":")[1]]
        return issued


class Resolving(Good):
    @m.hookimpl
    def endpoint(self, config):
        return socket.getaddrinfo("localhost", 443)[0][0].name


class Wavering(Good):
    @m.hookimpl
    def endpoint(self, config):
        return str(uuid.uuid4())


class Laden(Good):
    @m.hookimpl
    def endpoint(self, config):
        return importlib.import_module("wave").__name__  # it stands for an SDK


class Telling(Good):
    @m.hookimpl
    def endpoint(self, config):
        return f"{config.key.reveal()}@vendor.example.org"


KINDS = {kind.__name__: kind for kind in Good.__subclasses__()} | {"Good": Good}
