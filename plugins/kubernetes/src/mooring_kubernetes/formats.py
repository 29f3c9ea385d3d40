"""The forms that fields must have: each check names the field that is malformed, and never says its value."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import urlsplit

import mooring as m
from mooring_kubernetes import ids

TOKEN = re.compile(r"[!-~]{1,65536}")
HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}", re.ASCII)
PROXY = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+/?", re.ASCII)
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAMESPACE = re.compile(LABEL, re.ASCII)
ACCOUNT = re.compile(rf"{LABEL}/[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?", re.ASCII)
USER = re.compile(r"[^:\x00-\x1f\x7f]{1,1024}")
PASSWORD = re.compile(r"[^\x00-\x1f\x7f]{1,4096}")
LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|::1")

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII)
KEY = re.compile(r"-----BEGIN ((?:RSA |EC )?PRIVATE KEY)-----\s[A-Za-z0-9+/=\s]+-----END \1-----", re.ASCII)


def match(pattern: re.Pattern[str], value: str | m.Secret, field: str, form: str) -> None:
    """Raise InvalidConfig unless the value has the form."""
    if not _fits(pattern, value):
        raise m.InvalidConfig(f"field {field!r} is malformed; write {form}", field=field)


def _fits(pattern: re.Pattern[str], value: str | m.Secret) -> bool:
    """A function of its own: no frame of an error holds a secret that has been revealed."""
    return pattern.fullmatch(value.reveal() if isinstance(value, m.Secret) else value) is not None


def check_token(token: m.Secret, field: str = "token") -> None:
    """A token that an HTTP header can carry."""
    match(TOKEN, token, field, "a token without spaces or line breaks (look for one at its end)")


def check_server(server: str, *, insecure: bool, field: str = "server") -> None:
    """An address, with TLS unless it is this machine's own or said otherwise."""
    address = ids.address_of(server)
    if address is None:
        raise m.InvalidConfig(f"field {field!r} is malformed; write https://HOST:PORT", field=field)
    host = urlsplit(address).hostname or ""
    if address.startswith("http:") and not LOOPBACK.fullmatch(host) and not insecure:
        raise m.InvalidConfig(
            f"field {field!r} has no TLS, so anybody on the way could read the credentials; write https://, "
            "or set insecure_skip_tls_verify",
            field=field,
        )


def check_trust(certificate_authority: str | None, *, insecure: bool) -> None:
    """A CA, or that none is wanted, but not both."""
    if certificate_authority is None:
        return
    if insecure:
        raise m.InvalidConfig(
            "field 'insecure_skip_tls_verify' makes certificate_authority useless; drop one of them",
            field="insecure_skip_tls_verify",
        )
    certificates(certificate_authority, "certificate_authority")


def certificates(text: str, field: str) -> str:
    """One or more certificates as PEM, from PEM or from its base64.

    Raises:
        InvalidConfig: it is neither, or OpenSSL cannot read it.
    """
    import ssl

    pem = _pem(text)
    if pem is not None and (found := CERTIFICATE.findall(pem)):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(found))
        except (ssl.SSLError, ValueError):
            pass
        else:
            return "\n".join(found) + "\n"
    raise m.InvalidConfig(
        f"field {field!r} is no certificate; give it in PEM (-----BEGIN CERTIFICATE-----) or the base64 of that",
        field=field,
    )


def private_key(secret: m.Secret, field: str = "client_key") -> m.Secret:
    """A private key as PEM, from PEM or from its base64."""
    pem = _pem(secret.reveal())
    found = KEY.search(pem) if pem is not None else None
    encrypted = pem is not None and "ENCRYPTED" in pem
    made = m.Secret(found[0] + "\n") if found and not encrypted else None
    del secret, pem, found
    if made is not None:
        return made
    reason = "is no private key in PEM or the base64 of it"
    if encrypted:
        reason = "is encrypted; decrypt it (openssl pkey -in FILE)"
    raise m.InvalidConfig(f"field {field!r} {reason}", field=field)


def _pem(text: str) -> str | None:
    if "-----BEGIN" in text:
        return text.replace("\r\n", "\n")
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return decoded.replace("\r\n", "\n") if "-----BEGIN" in decoded else None
