"""What credentials say of themselves: whom they are of, and when they end. Nothing here is verified."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import datetime
from typing import Any

import mooring as m

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+=-]{0,252}")


def ends_of_token(token: m.Secret) -> datetime | None:
    """When a JWT ends; None for another token, or one without an end."""
    ends = _claims(token).get("exp")
    if isinstance(ends, bool) or not isinstance(ends, int | float):
        return None
    try:
        return m.instant(ends)
    except m.InvalidConfig:
        return None


def subject_of_token(token: m.Secret) -> str | None:
    """Whom a JWT is of, if that is a plain name."""
    subject = _claims(token).get("sub")
    return subject if isinstance(subject, str) and NAME.fullmatch(subject) else None


def _claims(token: m.Secret) -> dict[str, Any]:
    parts = token.reveal().split(".")
    if len(parts) != 3:  # noqa: PLR2004  (header, claims, signature)
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def ends_of_certificate(pem: str) -> datetime | None:
    """When the first certificate ends."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    except ValueError:
        return None


def subject_of_certificate(pem: str) -> str | None:
    """Whom Kubernetes takes the certificate's owner for: its common name."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        names = x509.load_pem_x509_certificate(pem.encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return None
    value = str(names[0].value) if names else ""
    return value if NAME.fullmatch(value) else None
