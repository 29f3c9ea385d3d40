"""The forms that fields must have: each check names the field that is malformed, and never says its value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import mooring as m
from mooring_aws import ids

REGION = re.compile(ids.REGION, re.ASCII)
LOOSE_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
"""Of stores that speak AWS's APIs, such as `auto`."""
URL = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(/[\w./-]*)?", re.ASCII)
SERVICE = re.compile(r"[a-z0-9-]+", re.ASCII)
KEY_ID = re.compile(r"[\w+=/,.@-]{3,128}", re.ASCII)
AWS_KEY_ID = re.compile(r"(AKIA|ASIA)[A-Za-z0-9]{12,124}")
SECRET = re.compile(r"[!-~]{3,256}")
TOKEN = re.compile(r"[!-~]{1,32768}")
EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
LOOSE_ROLE_ARN = re.compile(r"arn(:[\w-]{0,32}){4}:[\w+=,.@/-]{1,512}", re.ASCII)
"""Of stores with STS, which have partitions of their own, or no accounts."""
MFA_SERIAL = re.compile(r"[\w+=/:,.@-]{9,256}", re.ASCII)
MFA_CODE = re.compile(r"[0-9]{6}")
POLICY_ARN = re.compile(rf"arn:({ids.PARTITION}):iam::(aws|{ids.ACCOUNT}):policy/[\w+=,.@/-]{{1,512}}", re.ASCII)
TAG_KEY = re.compile(r"[\w .:/=+@-]{1,128}")
TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")

MAX_TAGS = 50
MAX_POLICY_ARNS = 10


def match(pattern: re.Pattern[str], value: str | m.Secret, field: str, form: str) -> None:
    """Raise InvalidConfig unless the value has the form."""
    if not _fits(pattern, value):
        raise m.InvalidConfig(f"field {field!r} is malformed; write {form}", field=field)


def _fits(pattern: re.Pattern[str], value: str | m.Secret) -> bool:
    """A function of its own: no frame of an error holds a secret that has been revealed."""
    return pattern.fullmatch(value.reveal() if isinstance(value, m.Secret) else value) is not None


def check_key(key: m.Secret, secret: m.Secret) -> None:
    """A key pair, not swapped."""
    match(KEY_ID, key, "aws_access_key_id", "an access key id like AKIA..., 3 to 128 characters without spaces")
    if key.reveal().startswith(("AKIA", "ASIA")):
        match(AWS_KEY_ID, key, "aws_access_key_id", "16 to 128 letters and digits (AWS's own have 20)")
    match(SECRET, secret, "aws_secret_access_key", "a secret access key, 3 to 256 characters without spaces")
    if _fits(AWS_KEY_ID, secret):
        raise m.InvalidConfig("field 'aws_secret_access_key' holds an access key id", field="aws_secret_access_key")


def check_long_lived(key: m.Secret, instead: str) -> None:
    """A key that is not one of AWS's temporary ones."""
    if key.reveal().startswith("ASIA"):
        raise m.InvalidConfig(
            f"field 'aws_access_key_id' holds a temporary key (ASIA...); {instead}", field="aws_access_key_id"
        )


def check_temporary(key: m.Secret, token: m.Secret) -> None:
    """A session token, and a key that it can belong to."""
    match(TOKEN, token, "aws_session_token", "a session token, without spaces")
    if key.reveal().startswith("AKIA"):
        raise m.InvalidConfig(
            "field 'aws_session_token' does not go with a long-lived key (AKIA...); give the key that it came with",
            field="aws_session_token",
        )


def check_role(role: str, partition: str | None) -> None:
    """A role's ARN of a partition; without one, of a store that has ARNs of its own."""
    if partition is None:
        match(LOOSE_ROLE_ARN, role, "role_arn", "an ARN like arn:aws:iam::ACCOUNT-ID:role/NAME")
        return
    found = ids.ROLE_ARN.fullmatch(role)
    if not found:
        raise m.InvalidConfig(
            "field 'role_arn' is malformed; write arn:aws:iam::ACCOUNT-ID:role/NAME", field="role_arn"
        )
    if found[1] != partition:
        raise m.InvalidConfig(
            f"field 'role_arn' is of partition {found[1]}, the region of {partition}", field="role_arn"
        )


def check_session(external_id: str | None, source_identity: str | None) -> None:
    """What a trust policy may ask for."""
    if external_id is not None:
        match(EXTERNAL_ID, external_id, "external_id", "2 to 1224 letters, digits or +=,.@:/-")
    if source_identity is not None:
        match(SESSION_NAME, source_identity, "source_identity", "2 to 64 letters, digits or +=,.@-")


def check_mfa(serial: str | None, code: m.Secret | None) -> None:
    """A device and its code, or neither."""
    if serial is not None:
        match(MFA_SERIAL, serial, "mfa_serial", "the ARN or the serial number of the device")
    if code is not None:
        match(MFA_CODE, code, "mfa_code", "six digits")
    if (serial is None) != (code is None):
        field = "mfa_code" if serial else "mfa_serial"
        raise m.InvalidConfig("give both fields 'mfa_serial' and 'mfa_code', or neither", field=field)


def check_tags(tags: Mapping[str, str]) -> None:
    """Session tags, within AWS's bounds."""
    if len(tags) > MAX_TAGS:
        raise m.InvalidConfig(f"field 'session_tags' has more than {MAX_TAGS} tags", field="session_tags")
    for key, value in tags.items():
        for pattern, text in ((TAG_KEY, key), (TAG_VALUE, value)):
            match(pattern, text, "session_tags", "KEY=VALUE of letters, digits and _.:/=+@-")


def check_policies(policy: str | None, arns: tuple[str, ...]) -> None:
    """A user's own session policies."""
    if len(arns) > MAX_POLICY_ARNS:
        raise m.InvalidConfig(f"field 'policy_arns' has more than {MAX_POLICY_ARNS} ARNs", field="policy_arns")
    for arn in arns:
        match(POLICY_ARN, arn, "policy_arns", "arn:aws:iam::aws:policy/NAME or arn:aws:iam::ACCOUNT-ID:policy/NAME")
    if policy is not None and not _is_policy(policy):
        raise m.InvalidConfig(
            "field 'policy' is malformed; write a JSON object with Version and Statement", field="policy"
        )


def _is_policy(text: str) -> bool:
    try:
        document = json.loads(text)
        json.dumps(document, allow_nan=False)  # NaN and Infinity, which Python reads, are not JSON
    except (ValueError, RecursionError):
        return False
    statements = document.get("Statement") if isinstance(document, dict) else None
    statements = [statements] if isinstance(statements, dict) else statements
    return isinstance(statements, list) and bool(statements) and all(isinstance(one, dict) for one in statements)
