"""A local AWS that answers each call after 100 ms; prints its URL. Light: what it costs is not to be measured.

The n-th caller is who signs with the access key `AKIA` or `ASIA` and 16 digits of n. GET /calls gives how often each
caller has called since the last time that this was asked; GET /ill?dead=3&throttled=4 says who is never answered, and
who is told to slow down.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

LATENCY = 0.1
ACCOUNT = "123456789012"
CALLER = re.compile(rb"Credential=(\w{4})(\d{16})/\d+/[\w-]+/(\w+)/")

BUCKETS = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Buckets><Bucket><Name>data</Name>
<CreationDate>2026-01-01T00:00:00.000Z</CreationDate></Bucket></Buckets><Owner><ID>1</ID></Owner>
</ListAllMyBucketsResult>"""
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
STS = """<{0}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{0}Result>{1}</{0}Result>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{0}Response>"""
IDENTITY = f"<Arn>arn:aws:iam::{ACCOUNT}:user/bench</Arn><UserId>AIDA</UserId><Account>{ACCOUNT}</Account>"
ROLE = f"""<AssumedRoleUser><Arn>arn:aws:sts::{ACCOUNT}:assumed-role/bench/s</Arn><AssumedRoleId>AROA:s</AssumedRoleId>
</AssumedRoleUser><Credentials><AccessKeyId>ASIA%s</AccessKeyId><SecretAccessKey>{"s" * 40}</SecretAccessKey>
<SessionToken>{"t" * 300}</SessionToken><Expiration>%s</Expiration></Credentials>"""
CLUSTERS = b'{"clusters": ["main"]}'
REGISTRY = b'{"registryId": "%s", "repositories": []}' % ACCOUNT.encode()


class Upstream(asyncio.Protocol):
    """One connection."""

    calls: ClassVar[Counter[str]] = Counter()
    ill: ClassVar[dict[str, str]] = {}
    """The illness of a caller."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if len(rest) >= size:
            self._received = rest[size:]
            self._answer(head, rest[:size])

    def _answer(self, head: bytes, body: bytes) -> None:
        caller = CALLER.search(head)
        if caller is None:
            self._send(200, self._control(head.split(b" ", 2)[1].decode()))
            return
        number = caller[2].decode()
        self.calls[number.lstrip("0") or "0"] += 1
        illness = self.ill.get(number.lstrip("0"))
        if illness == "throttled":
            asyncio.get_running_loop().call_later(LATENCY, self._send, 503, SLOW_DOWN, b"retry-after: 1\r\n")
        elif illness is None:
            answer = _answer(caller[3].decode(), number, body)
            asyncio.get_running_loop().call_later(LATENCY, self._send, 200, answer)

    def _control(self, target: str) -> bytes:
        url = urlsplit(target)
        if url.path == "/ill":
            self.ill.clear()
            self.ill.update({number: illness for illness, [number] in parse_qs(url.query).items()})
            return b"{}"
        told = json.dumps(self.calls).encode()
        self.calls.clear()
        return told

    def _send(self, status: int, body: bytes, more: bytes = b"") -> None:
        kind = b"xml" if body.startswith(b"<") else b"json"
        self._transport.write(
            b"HTTP/1.1 %d -\r\ncontent-type: application/%s\r\n%scontent-length: %d\r\n\r\n%s"
            % (status, kind, more, len(body), body)
        )


def _answer(service: str, number: str, body: bytes) -> bytes:
    if service == "s3":
        return BUCKETS
    if service == "eks":
        return CLUSTERS
    if service == "ecr":
        return REGISTRY
    if b"Action=GetCallerIdentity" in body:
        return STS.format("GetCallerIdentity", IDENTITY).encode()
    ends = datetime.now(UTC) + timedelta(hours=1)
    return STS.format("AssumeRole", ROLE % (number, f"{ends:%Y-%m-%dT%H:%M:%SZ}")).encode()


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
