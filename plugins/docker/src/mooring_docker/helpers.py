"""Other people's credential helpers: `docker-credential-NAME`, called with a time limit and a limit of what is read.

Source: https://github.com/docker/docker-credential-helpers#development
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process

import mooring as m
from mooring_docker.logins import NOT_FOUND

SECONDS = 10.0
LONGEST_ANSWER = 64 * 1024
"""Bytes of an answer that are read, at most."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


async def get(helper: str, server: str) -> tuple[str, m.Secret] | None:
    """The user and password that a helper has for a server, None if it has none.

    Raises:
        InvalidConfig: it is missing, hangs, fails or answers what is not in the protocol. Never says what it said.
    """
    answer = await _run(helper, "get", server.encode())
    if answer is None:
        return None
    values = _values(answer) or {}
    username, secret = values.get("Username"), values.get("Secret")
    good = isinstance(username, str) and isinstance(secret, str)
    if not good or not secret:
        del answer, values, username, secret
        raise m.InvalidConfig(f"docker-credential-{helper} answered what is no user and password; call it by hand")
    return str(username), m.Secret(str(secret))


async def servers(helper: str) -> tuple[str, ...]:
    """The servers that a helper has something for.

    Raises:
        InvalidConfig: as of `get`.
    """
    answer = await _run(helper, "list", b"")
    values = _values(answer) if answer and answer.strip() else {}
    if values is None:
        del answer
        raise m.InvalidConfig(f"docker-credential-{helper} answered what is no list; call it by hand")
    return tuple(values)


def _values(answer: bytes) -> dict[str, Any] | None:
    """The object of an answer, None if it is none."""
    try:
        values = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


async def _run(helper: str, verb: str, given: bytes) -> bytes | None:
    if not _NAME.fullmatch(helper):
        raise m.InvalidConfig("the configuration names a credential helper that cannot be one; check credsStore")
    name = f"docker-credential-{helper}"
    program = shutil.which(name)
    if program is None:
        raise m.InvalidConfig(f"the credential helper {name} is not on the PATH; install it, or give the password")
    with anyio.move_on_after(SECONDS):
        try:
            code, answer = await _talk(program, verb, given)
        except OSError as error:
            raise m.InvalidConfig(f"{name} cannot be run ({error.strerror}); install it again") from None
        if len(answer) > LONGEST_ANSWER:
            raise m.InvalidConfig(f"{name} answered more than {LONGEST_ANSWER // 1024} KiB; call it by hand")
        if code == 0:
            return answer
        if answer.strip() == NOT_FOUND.encode():
            return None
        raise m.InvalidConfig(f"{name} failed with exit code {code}; call it by hand: {name} {verb}")
    raise m.InvalidConfig(f"{name} did not answer within {SECONDS:g} s; call it by hand: {name} {verb}")


async def _talk(program: str, verb: str, given: bytes) -> tuple[int, bytes]:
    with anyio.CancelScope(shield=True):  # asyncio loses track of a process that is cancelled while it starts
        process = await anyio.open_process([program, verb], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            if process.stdin is not None:
                await process.stdin.send(given)
                await process.stdin.aclose()
        answer = await _read(process.stdout) if process.stdout is not None else b""
        if len(answer) > LONGEST_ANSWER:
            return 0, answer
        return await process.wait(), answer
    finally:
        await _end(process)


async def _read(stream: ByteReceiveStream) -> bytes:
    answer = bytearray()
    with suppress(anyio.EndOfStream):
        while len(answer) <= LONGEST_ANSWER:
            answer += await stream.receive()
    return bytes(answer)


async def _end(process: Process) -> None:
    """Kill the helper if it runs, with all that it has started: that would hold its output open."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        await process.aclose()
