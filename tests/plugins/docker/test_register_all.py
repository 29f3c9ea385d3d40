"""`mooring connector register --auto-configure --all`: the logins of docker, by the real command line and registry."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ALL = ("connector", "register", "--type", "docker", "--auto-configure", "--all")
CANARY = "cAnArY-pw"


def mooring(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mooring", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    assert CANARY not in done.stdout + done.stderr
    return done


def coded(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def test_each_login_of_real_registries(machine: Path, htpasswd: Any, token_registry: Any) -> None:
    auths = {
        htpasswd.host: coded("alice", "pw-alice"),
        token_registry.host: coded("bob", CANARY),
        "127.0.0.1:1": coded("eve", CANARY),
        "s.org": {"identitytoken": CANARY},
    }
    (machine / ".docker").mkdir()
    file = machine / ".docker" / "config.json"
    file.write_text(json.dumps({"auths": auths}))

    done = mooring(*ALL, "--insecure", "-o", "json")

    found = {one["name"]: one for one in json.loads(done.stdout)}
    note, counted = done.stderr.splitlines()
    assert note.startswith(f"Note: as {htpasswd.host.replace(':', '-')} is, issuing would be refused: ")
    assert counted == "Registered 1 connector of 4 found."
    good = found.pop(htpasswd.host.replace(":", "-"))
    assert (good["source"], good["error"]) == (f"the login for {htpasswd.host} in {file}", None)
    assert good["connector"]["configuration"]["username"] == "alice"
    assert {name: one["error"]["error"] for name, one in found.items()} == {
        token_registry.host.replace(":", "-"): "AuthFailed",
        "127.0.0.1-1": "Unreachable",
        "s.org": "NothingToLift",
    }
    listed = json.loads(mooring("connector", "list", "-o", "json").stdout)
    assert [one["name"] for one in listed] == [good["name"]]


def test_without_logins(machine: Path) -> None:
    assert mooring(*ALL, code=2).stderr.startswith("Error: no login in ")
