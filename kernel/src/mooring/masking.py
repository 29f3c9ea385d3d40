"""Keeps known secrets out of what is shown or kept: plain, quoted, escaped, in base64 and hex, within a text too."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from urllib.parse import quote, quote_plus

from mooring.types import MASK, Secret

TELLING = re.compile(r"key|secret|token|password|passwd|credential", re.IGNORECASE)
"""Names of environment variables whose values count as secrets."""
MIN_SURROUNDING = 8
"""Shorter values in the environment are switches and names."""
MIN_LENGTH = 3
"""Shorter texts are in every word; masking them would leave nothing to read."""
PERCENT = re.compile("%[0-9A-F]{2}")
ALIGNMENTS = 3
"""How many ways the bytes of a text can lie in base64 (RFC 4648 section 4)."""


class Masking:
    """The secrets that it was told of, and those in the environment."""

    def __init__(self, environment: Mapping[str, str] = os.environ, *, most: int | None = None) -> None:
        """Know the last `most` that it is told of; all, if None."""
        self._environment = environment
        self._most = most
        self._known: dict[str, frozenset[str] | None] = {}
        """Their forms, once they were looked for; in the order in which they were learned."""

    def learn(self, *secrets: str | Secret) -> None:
        """Mask these from now on. Safe to call from any thread."""
        for secret in secrets:
            text = secret.reveal() if isinstance(secret, Secret) else secret
            self._known[text] = self._known.pop(text, None)
        while self._most is not None and len(self._known) > self._most:
            self._known.pop(next(iter(self._known)), None)

    def __call__(self, text: str) -> str:
        """The text without the secrets. Safe to call from any thread."""
        if not text:
            return text
        known = [found or self._look(secret) for secret, found in self._known.copy().items()]
        found = {form for some in (*known, *map(forms, self._surrounding())) for form in some}
        present = [form for form in found if len(form) >= MIN_LENGTH and form in text]
        if not present:
            return text
        pattern = "|".join(re.escape(form) for form in sorted(present, key=len, reverse=True))
        return re.sub(f"(?:{pattern})+", MASK, text)

    def _look(self, secret: str) -> frozenset[str]:
        found = frozenset(forms(secret))
        if secret in self._known:
            self._known[secret] = found
        return found

    def _surrounding(self) -> Iterator[str]:
        """What the environment holds under a telling name: whole, and the parts of `id:key,id:key`."""
        for name, value in self._environment.items():
            if TELLING.search(name):
                parts = (value, *re.split(r"[,\s]+", value), *re.split(r"[,\s:]+", value))
                yield from (part for part in parts if len(part) >= MIN_SURROUNDING)


def forms(text: str) -> Iterator[str]:
    """How a secret may look where somebody wrote it."""
    for part in _parts(text):
        encoded = part.encode(errors="surrogateescape")
        yield part
        for quoted in (part, f"'\"{part}"):  # repr escapes a quote where there are both
            yield repr(quoted)[1:-1].removeprefix("\\'\"")
        yield repr(encoded)[2:-1]
        for escaped in (json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
            yield escaped
            yield json.dumps(escaped)[1:-1]
        for by_quote in (True, False):
            yield escape(part, quote=by_quote)
        for url in (quote(encoded, safe=""), quote(encoded), quote_plus(encoded)):
            yield url
            yield PERCENT.sub(lambda found: found[0].lower(), url)
        yield encoded.hex()
        yield encoded.hex().upper()
        yield from _base64(encoded)


def _parts(text: str) -> Iterable[str]:
    """The whole, and each line of it, as tracebacks and logs may break it."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("-----")]
    return dict.fromkeys([text, text.strip(), *lines])


def _base64(encoded: bytes) -> Iterator[str]:
    """What is the same in base64 whatever comes before and after, for each alignment."""
    if len(encoded) < MIN_LENGTH:
        return
    for before in range(ALIGNMENTS):
        padded = bytes(before) + encoded
        whole = len(padded) - len(padded) % ALIGNMENTS
        form = base64.b64encode(padded[:whole]).decode()[(before * 4 + 2) // 3 if before else 0 :]
        yield form
        yield form.translate(str.maketrans("+/", "-_"))
    yield base64.b64encode(encoded).decode().rstrip("=")
    yield base64.urlsafe_b64encode(encoded).decode().rstrip("=")
