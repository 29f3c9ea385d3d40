"""`mooring connector register --auto-configure --all`: the contexts of a kubeconfig, by the real command line."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ALL = ("connector", "register", "--type", "kubernetes", "--auto-configure", "--all")
CANARY = "cAnArY-t0ken"


def mooring(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mooring", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    assert CANARY not in done.stdout + done.stderr
    return done


@pytest.fixture
def contexts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a kubeconfig: for each context its server, and a user."""
    monkeypatch.setenv("MOORING_HOME", str(machine / "mooring"))

    def made(cluster: dict[str, Any], users: dict[str, dict[str, Any]]) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": name, "user": user} for name, user in users.items()],
            "contexts": [{"name": name, "context": {"cluster": "lab", "user": name}} for name in users],
        }
        (machine / ".kube").mkdir()
        (machine / ".kube" / "config").write_text(json.dumps(document))  # JSON is YAML

    return made


def test_each_context_of_a_real_cluster(cluster: Any, namespace: str, contexts: Any) -> None:
    def coded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    certificate, key = cluster.admin
    users = {
        "admin@lab": {"client-certificate-data": coded(certificate), "client-key-data": coded(key)},
        "arn:aws:eks:eu-west-1:1:cluster/bot": {"token": cluster.token(namespace, "bot")},
        "stale": {"token": CANARY},
        "gcp": {"auth-provider": {"name": "gcp"}},
    }
    contexts({"server": cluster.url, "certificate-authority-data": coded(cluster.ca)}, users)

    done = mooring(*ALL, "lab", "--label", "team=ml", "-o", "json")

    admin, bot, stale, gcp = json.loads(done.stdout)
    first, second, *_, last = done.stderr.splitlines()
    assert first.startswith("Note: as lab-admin-lab is, issuing would be refused: the connector has no service_account")
    assert "mooring connector update lab-arn-aws-eks-eu-west-1-1-cluster-bot --service-account" in second
    assert last == "Registered 2 connectors of 4 found."
    assert (admin["name"], admin["connector"]["auth_method"]) == ("lab-admin-lab", "client-certificate")
    assert (bot["name"], bot["connector"]["auth_method"]) == ("lab-arn-aws-eks-eu-west-1-1-cluster-bot", "token")
    assert admin["connector"]["expires_at"] is not None
    assert (stale["name"], stale["connector"], stale["error"]["error"]) == ("lab-stale", None, "AuthFailed")
    assert "gke-gcloud-auth-plugin" in gcp["error"]["message"]
    assert gcp["source"].startswith("the context 'gcp' of ")
    listed = json.loads(mooring("connector", "list", "--label", "team=ml", "-o", "json").stdout)
    assert [one["name"] for one in listed] == [admin["name"], bot["name"]]
    assert mooring("connector", "verify", admin["name"], "--verify-only").stdout

    again = mooring(*ALL, "lab", code=7)
    assert again.stdout.count("exists already") == 2


def test_without_a_cluster(contexts: Any) -> None:
    nothing = mooring(*ALL, code=2)
    assert nothing.stderr.startswith("Error: no kubeconfig on this machine; looked in ")
    contexts({"server": "https://127.0.0.1:1"}, {"a": {"token": CANARY}, "b": {"username": "u", "password": CANARY}})
    assert mooring(*ALL, code=7).stderr == "Registered 0 connectors of 2 found.\n"
    one = mooring(*ALL, "--context", "b", "--no-verify").stderr
    assert one.startswith("Note: as b is, issuing would be refused: ")
    assert one.endswith(".\nRegistered 1 connector of 1 found.\n")
    assert mooring(*ALL, "--no-verify").stderr.endswith("Registered 1 connector of 2 found.\n")
    register = ("connector", "register", "--type", "kubernetes", "--auto-configure", "--context", "b", "--no-verify")
    bare = mooring(*register, "bare").stderr
    assert "Note: as it is, issuing would be refused: the connector has no service_account to issue for" in bare
    assert "Note: " not in mooring(*register, "whole", "--service-account", "apps/bot").stderr
    mooring("connector", "delete", "-y", "bare")
    mooring("connector", "delete", "-y", "whole")
    assert [one["name"] for one in json.loads(mooring("connector", "list", "-o", "json").stdout)] == ["a", "b"]
