"""TLS contexts, made from memory: no key is left in a file."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import mooring as m
from mooring_kubernetes.formats import LOOPBACK, PROXY

MOST_CONTEXTS = 256


class Trust:
    """Contexts without a client certificate, which many sessions share: making one costs up to 40 ms of CPU."""

    def __init__(self) -> None:
        self._made: dict[tuple[str | None, bool], ssl.SSLContext] = {}

    def context(self, certificate_authority: str | None, *, insecure: bool) -> ssl.SSLContext:
        """The context that trusts a CA (the system's, if None), or anybody."""
        key = certificate_authority, insecure
        if key not in self._made:
            if len(self._made) >= MOST_CONTEXTS:
                self._made.clear()
            self._made[key] = context_of(certificate_authority, insecure=insecure)
        return self._made[key]


def context_of(
    certificate_authority: str | None,
    *,
    insecure: bool,
    client_certificate: str | None = None,
    client_key: m.Secret | None = None,
) -> ssl.SSLContext:
    """A context of its own.

    Raises:
        InvalidConfig: the CA or the client certificate cannot be used, or the key is not the certificate's.
    """
    problem = "the CA of the cluster cannot be read; give it in PEM"
    try:
        context = ssl.create_default_context(cadata=certificate_authority)
        if certificate_authority is not None and hasattr(ssl, "VERIFY_X509_STRICT"):
            # the CAs of many clusters make certificates without the key identifiers that Python 3.13 asks for
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if client_certificate is not None and client_key is not None:
            problem = "the client certificate and its key do not go together; give a pair"
            with _held(client_certificate, client_key) as path:
                context.load_cert_chain(path, password=lambda: "")  # without, OpenSSL asks at the terminal
    except (ssl.SSLError, ValueError):
        pass
    else:
        return context
    raise m.InvalidConfig(problem)


@contextmanager
def _held(certificate: str, key: m.Secret) -> Generator[str, None, None]:
    """A file for OpenSSL, which reads from nothing else: in memory where there is such, else private and removed."""
    in_memory = hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()
    number, path = (os.memfd_create("mooring"), "") if in_memory else tempfile.mkstemp(prefix="mooring-")
    try:
        os.write(number, f"{certificate}\n{key.reveal()}\n".encode())
        yield path or f"/proc/self/fd/{number}"
    finally:
        os.close(number)
        if path:
            Path(path).unlink()


def proxy_of(server: str, proxy_url: str | None) -> str | None:
    """The proxy on the way: the one that is said, or else the environment's; none to this machine itself."""
    if proxy_url is not None:
        return proxy_url
    parts = urlsplit(server)
    host = parts.hostname or ""
    if LOOPBACK.fullmatch(host) or proxy_bypass(parts.netloc):
        return None
    found = getproxies().get(parts.scheme)
    return found if found and PROXY.fullmatch(found) else None
