"""A real cluster for tests: kube-apiserver and etcd on loopback, found as envtest finds them (KUBEBUILDER_ASSETS).

No controllers and no nodes: service accounts, Secrets, RBAC and TokenRequest are all there, pods are not.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

STARTING_SECONDS = 120
HOW = "run: make kube-assets"


def assets() -> Path:
    """The folder of the servers."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mooring" / "kubebuilder"
    return Path(os.environ.get("KUBEBUILDER_ASSETS") or usual)


def missing() -> str | None:
    """What is not there for a cluster, and how to get it."""
    lacking = [name for name in ("kube-apiserver", "etcd") if not os.access(assets() / name, os.X_OK)]
    return f"no {' and no '.join(lacking)} in {assets()}; {HOW}" if lacking else None


def _pem(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


class Authority:
    """A certificate authority."""

    def __init__(self, name: str = "test-ca") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        made = (
            self._builder(self._name, self._key.public_key(), dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = made.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(self, subject: x509.Name, key: Any, life: dt.timedelta) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + life) - dt.timedelta(hours=1))
            .not_valid_after(now + life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    def _sign(self, subject: x509.Name, usage: Any, life: dt.timedelta, *more: Any) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(subject, key.public_key(), life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        made = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        return made, _pem(key)

    def server(self, *hosts: str, life: dt.timedelta = dt.timedelta(days=1)) -> tuple[str, str]:
        """A server's certificate and key."""
        names: list[Any] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        return self._sign(subject, ExtendedKeyUsageOID.SERVER_AUTH, life, x509.SubjectAlternativeName(names))

    def client(self, user: str, *groups: str, life: dt.timedelta = dt.timedelta(days=1)) -> tuple[str, str]:
        """A client's certificate and key, as Kubernetes reads them."""
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        return self._sign(subject, ExtendedKeyUsageOID.CLIENT_AUTH, life)


class Cluster:
    """A running cluster; `call` is what its administrator does."""

    def __init__(self, url: str, authority: Authority, folder: Path) -> None:
        self.url = url
        self.authority = authority
        self.folder = folder
        self.ca = authority.pem
        self.admin = authority.client("admin", "system:masters")
        self.viewer_token = "viewer-token-0123456789"
        self._tls = ssl.create_default_context(cadata=self.ca)
        for name, text in zip(("admin.crt", "admin.key"), self.admin, strict=True):
            (folder / name).write_text(text)
        self._tls.load_cert_chain(folder / "admin.crt", folder / "admin.key")

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self._open("GET", "/readyz") == b"ok"
        return False

    def _open(self, method: str, path: str, body: Any = None) -> bytes:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._tls)
        )
        with opener.open(request, timeout=10) as answer:
            return answer.read()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self._open(method, path, body))

    def status(self, path: str, token: str) -> int:
        """How the server answers somebody with a token."""
        headers = {"Authorization": f"Bearer {token}"}
        context = ssl.create_default_context(cadata=self.ca)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(urllib.request.Request(self.url + path, headers=headers), timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def secrets(self, namespace: str) -> list[str]:
        """The Secrets of mooring."""
        chosen = "?labelSelector=app.kubernetes.io/managed-by%3Dmooring"
        items = self.call("GET", f"/api/v1/namespaces/{namespace}/secrets{chosen}")["items"]
        return [item["metadata"]["name"] for item in items]

    def namespace(self, name: str, *, account: str = "bot") -> str:
        """A namespace with a service account that may read its configmaps, and an issuer who may make its tokens."""
        group = "rbac.authorization.k8s.io"
        base = f"/api/v1/namespaces/{name}"
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for one in (account, "issuer"):
            self.call("POST", f"{base}/serviceaccounts", {"metadata": {"name": one}})
        self.call("POST", f"{base}/configmaps", {"metadata": {"name": "settings"}, "data": {"colour": "blue"}})
        rules = {
            account: [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
            "issuer": [
                {
                    "apiGroups": [""],
                    "resources": ["serviceaccounts/token"],
                    "verbs": ["create"],
                    "resourceNames": [account, "nobody"],
                },
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]},
            ],
        }
        for one, allowed in rules.items():
            self.call(
                "POST", f"/apis/{group}/v1/namespaces/{name}/roles", {"metadata": {"name": one}, "rules": allowed}
            )
            self.bind(name, one, {"kind": "ServiceAccount", "name": one, "namespace": name})
        return name

    def bind(self, namespace: str, role: str, subject: dict[str, str]) -> None:
        """Give a role to somebody."""
        group = "rbac.authorization.k8s.io"
        body = {
            "metadata": {"generateName": f"{role}-"},
            "subjects": [subject],
            "roleRef": {"apiGroup": group, "kind": "Role", "name": role},
        }
        self.call("POST", f"/apis/{group}/v1/namespaces/{namespace}/rolebindings", body)

    def token(self, namespace: str, account: str) -> str:
        """A token of a service account, bound to nothing."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.call("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])


def _free(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


@contextlib.contextmanager
def running(folder: Path, *flags: str) -> Iterator[Cluster]:
    """A cluster whose files are in a folder; `flags` go to kube-apiserver."""
    port, client, peer = _free(3)
    authority = Authority()
    certificate, key = authority.server("127.0.0.1", "localhost", "kubernetes.default.svc")
    accounts = rsa.generate_private_key(65537, 2048)
    public = accounts.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    cluster = Cluster(f"https://127.0.0.1:{port}", authority, folder)
    files = {"ca.crt": cluster.ca, "server.crt": certificate, "server.key": key, "sa.key": _pem(accounts)}
    files |= {"sa.pub": public.decode(), "tokens.csv": f'{cluster.viewer_token},viewer,1001,"readers"\n'}
    for name, text in files.items():
        (folder / name).write_text(text)
    issuer = "https://kubernetes.default.svc"
    etcd = [
        "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync",
        "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
        "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
        "--initial-cluster", f"default=http://127.0.0.1:{peer}",
    ]  # fmt: skip
    server = [
        "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={folder / 'made'}",
        f"--tls-cert-file={folder / 'server.crt'}", f"--tls-private-key-file={folder / 'server.key'}",
        f"--client-ca-file={folder / 'ca.crt'}", f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC", "--anonymous-auth=true", "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none", f"--service-account-issuer={issuer}", f"--api-audiences={issuer}",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}", *flags,
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_process(folder, command)) for command in (etcd, server)]
        ends = time.monotonic() + STARTING_SECONDS
        while not cluster.ready():
            gone = [one for one in started if one.poll() is not None]
            if gone or time.monotonic() > ends:
                logs = "".join(file.read_text()[-2000:] for file in sorted(folder.glob("*.log")))
                raise RuntimeError(f"the cluster does not start\n{logs}")
            time.sleep(0.1)
        yield cluster


@contextlib.contextmanager
def _process(folder: Path, command: list[Any]) -> Iterator[subprocess.Popen[bytes]]:
    program, *rest = command
    with (folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen(
            [assets() / program, *map(str, rest)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
