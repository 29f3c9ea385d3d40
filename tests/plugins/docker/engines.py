"""Real engines, each with a folder of its own and away from the machine's: dockerd, and podman, which needs no daemon.

Only root can start them. Nothing is run in a container, and no network is made.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mooring-tests" / "engine"
FOLDERS = [str(CACHE / folder) for folder in ("usr/sbin", "usr/bin")]
LIBRARIES = CACHE / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
HOW = "run: make engine-assets"
BEGINS = 60
"""Seconds that an engine has to begin in."""


def program(name: str) -> str:
    """The program, or a skip that says how to get it."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *FOLDERS]))
    if not found:
        pytest.skip(f"no {name} on the PATH or in {CACHE}; {HOW}")
    return found


def environment(command: str) -> dict[str, str]:
    """What a program needs to find its own, where it was unpacked."""
    if not command.startswith(str(CACHE)):
        return dict(os.environ)
    path = os.pathsep.join([*FOLDERS, os.environ.get("PATH", "")])
    return dict(os.environ) | {"PATH": path, "LD_LIBRARY_PATH": str(LIBRARIES)}


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("container engines can be started by root alone; run: sudo make test TESTS=tests/plugins/docker")


@contextmanager
def dockerd() -> Iterator[str]:
    """A running dockerd; gives its DOCKER_HOST."""
    needs_root()
    command = program("dockerd")
    folder = Path(tempfile.mkdtemp(prefix="mooring-"))  # short: it ends up in the names of sockets
    (folder / "daemon.json").write_text("{}")
    address = folder / "docker.sock"
    options = {
        "config-file": folder / "daemon.json",
        "host": f"unix://{address}",
        "data-root": folder / "data",
        "exec-root": folder / "exec",
        "pidfile": folder / "pid",
        "storage-driver": "vfs",
        "bridge": "none",
        "iptables": "false",
        "ip6tables": "false",
        "ip-masq": "false",
    }
    try:
        with (folder / "log").open("wb") as log:
            words = [command, *(f"--{name}={value}" for name, value in options.items())]
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(command))
        try:
            wait_for(child, address, folder / "log")
            yield f"unix://{address}"
        finally:
            child.send_signal(signal.SIGTERM)  # it ends its containerd, and unmounts
            try:
                child.wait(BEGINS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(child: subprocess.Popen[bytes], address: Path, log: Path) -> None:
    """Until the engine answers; where it ends instead, the test is skipped with what it said last."""
    end = time.monotonic() + BEGINS
    while time.monotonic() < end:
        if child.poll() is not None:
            last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
            pytest.skip(f"dockerd does not start on this machine; it said: {last[-300:]}")
        with suppress(OSError, urllib.error.URLError):
            if pings(address):
                return
        time.sleep(0.05)
    pytest.skip(f"dockerd does not answer after {BEGINS} s on this machine")


def pings(address: Path) -> bool:
    with socket(AF_UNIX) as wire:
        wire.connect(str(address))
        connection = HTTPConnection("docker")
        connection.sock = wire
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200


class Podman:
    """podman with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        needs_root()
        self.command = program("podman")
        self.folder = folder
        own = {"conmon_path": [program("conmon")], "runtime": "crun", "lock_type": "file", "events_logger": "file"}
        runtimes = {"crun": [program("crun")]}
        lines = [f"{name} = {json.dumps(value)}" for name, value in own.items()]
        text = "\n".join(["[engine]", *lines, "[engine.runtimes]", f"crun = {json.dumps(runtimes['crun'])}", ""])
        (folder / "containers.conf").write_text(text)

    def words(self, verb: str) -> list[str]:
        """How a command begins that may speak with a registry on loopback."""
        kept = {name: self.folder / name for name in ("root", "runroot", "tmpdir")}
        plainly = ["--tls-verify=false"] if verb in ("pull", "push") else []
        return [
            self.command,
            "--storage-driver=vfs",
            *(f"--{name}={path}" for name, path in kept.items()),
            verb,
            *plainly,
        ]

    @property
    def variables(self) -> dict[str, str]:
        """What its commands need beside."""
        return environment(self.command) | {"CONTAINERS_CONF": str(self.folder / "containers.conf")}

    def __call__(self, verb: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return subprocess.run(
            [*self.words(verb), *words],
            capture_output=True,
            text=True,
            timeout=120,
            env=self.variables | variables,
            check=False,
        )


@contextmanager
def podman() -> Iterator[Any]:
    """podman, if it works on this machine."""
    folder = Path(tempfile.mkdtemp(prefix="mooring-"))
    try:
        made = Podman(folder)
        tried = made("info")
        if tried.returncode:
            pytest.skip(f"podman does not work on this machine; it said: {tried.stderr.strip()[-300:]}")
        yield made
    finally:
        for mounted in ("overlay", "vfs"):
            subprocess.run(["umount", "-q", folder / "root" / mounted], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
