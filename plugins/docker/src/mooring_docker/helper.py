"""`docker-credential-mooring`: what docker, podman and skopeo call to log in; it calls mooring, and keeps nothing.

By the protocol a request comes on stdin, and an error is told on stdout, with the exit code 1.

Source: https://github.com/docker/docker-credential-helpers#development
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import mooring as m
from mooring_docker import files, ids, logins
from mooring_docker.logins import NOT_FOUND
from mooring_docker.render import keys_of

LONGEST_REQUEST = 64 * 1024
SECONDS = 120
INTERRUPTED = 130
VERBS = ("get", "store", "erase", "list")
USAGE = (
    f"usage: docker-credential-mooring {{{'|'.join(VERBS)}}}, called by docker and podman; see: mooring login --help"
)


class Refused(Exception):
    """What is told to the caller instead of an answer."""


def main() -> int:
    """The program."""
    try:
        said, code = _answer(sys.argv[1:]), 0
    except Refused as refusal:
        said, code = f"{refusal}\n", 1
    except m.MooringError as error:
        said, code = f"mooring: {error}\n", 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if _told(said) else 1


def _told(text: str) -> bool:
    """Whether the caller could be told; one that has gone needs no more than the exit code."""
    try:
        with open(1, "wb", closefd=False) as stdout:
            stdout.write(text.encode())
    except OSError as error:
        with suppress(OSError, AttributeError):
            sys.stderr.write(f"mooring: the answer cannot be written ({error.strerror})\n")
        return False
    return True


def _answer(words: list[str]) -> str:
    if len(words) != 1 or words[0] not in VERBS:
        raise Refused(USAGE)
    (verb,) = words
    if verb == "list":
        return json.dumps({keys_of(host)[0]: entry["username"] for host, entry in _entries().items()}) + "\n"
    given = _given()
    if verb == "store":
        raise Refused(
            "mooring issues this registry's credentials itself and stores none; to log in with a password of your own, "
            "first run: mooring logout"
        )
    host = _host(given)
    entry = _entries().get(host)
    if verb == "erase":
        if entry is not None:
            sys.stderr.write(f"mooring keeps no password of {host}; to end its logins: mooring logout\n")
        return ""
    if entry is None:
        raise Refused(NOT_FOUND)
    return _issued([str(word) for word in entry["command"]], given)


def _given() -> str:
    try:
        with open(0, "rb", closefd=False) as stdin:
            return _requested(stdin.read(LONGEST_REQUEST + 1))
    except OSError:
        return _requested(b"")


def _requested(request: bytes) -> str:
    """What a request holds: a server's URL, or of `store` more than that."""
    try:
        text = request.decode().strip()
    except ValueError:
        text = ""
    if not text or len(request) > LONGEST_REQUEST:
        raise Refused("no credentials server URL")
    return text


def _host(server: str) -> str:
    """The registry that a server URL names."""
    try:
        return ids.place_of(ids.canonical(ids.REGISTRY, server)).host
    except m.InvalidConfig:
        raise Refused(NOT_FOUND) from None


def _entries() -> dict[str, dict[str, Any]]:
    """What `login` has written, as far as it is whole."""
    _, values = files.read(logins.usual_file())
    return {
        host: entry
        for host, entry in values.items()
        if isinstance(entry, dict) and isinstance(entry.get("command"), list) and entry["command"]
        if isinstance(entry.get("username"), str)
    }


def _issued(command: list[str], server: str) -> str:
    """What mooring issues, as an answer for the server that was asked for."""
    try:
        done = subprocess.run(  # noqa: S603  the command line that `login` wrote
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"mooring did not answer within {SECONDS} s; try: mooring doctor") from None
    except (OSError, ValueError):
        raise Refused("the mooring that logged in is gone; run mooring login again") from None
    if done.returncode != 0:
        raise Refused(done.stderr.decode(errors="replace").strip() or f"mooring failed ({done.returncode})")
    values = _values(done.stdout)
    if values is None:
        raise Refused("mooring answered what is no login; run mooring login again")
    return json.dumps({"ServerURL": server, "Username": values["Username"], "Secret": values["Secret"]}) + "\n"


def _values(answer: bytes) -> dict[str, str] | None:
    """A function of its own: no frame of an error holds the answer."""
    try:
        values = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    good = isinstance(values, dict) and all(isinstance(values.get(name), str) for name in ("Username", "Secret"))
    return values if good else None
