"""Secrets taken out of a stream of bytes, however it is cut: no more is held back than what may begin one."""

from __future__ import annotations

import re

from mooring.masking import forms
from mooring.types import MASK, Secret

MIN_BYTES = 8
"""Shorter secrets are in too much that is none."""


class Known:
    """Secrets in all their forms. May learn in one thread while others conceal."""

    def __init__(self, *secrets: Secret) -> None:
        self._forms: frozenset[bytes] = frozenset()
        self._by_first: dict[int, list[bytes]] = {}
        self._longest = 0
        self._pattern: re.Pattern[bytes] | None = None
        self.learn(*secrets)

    def learn(self, *secrets: Secret) -> None:
        """Conceal these from now on."""
        long = [text for one in secrets if len((text := one.reveal()).encode(errors="surrogateescape")) >= MIN_BYTES]
        new = {form.encode(errors="surrogateescape") for text in long for form in forms(text)}
        found = self._forms | {form for form in new if len(form) >= MIN_BYTES}
        if found == self._forms:
            return
        by_first: dict[int, list[bytes]] = {}
        for form in found:
            by_first.setdefault(form[0], []).append(form)
        pattern = re.compile(b"|".join(re.escape(form) for form in sorted(found, key=len, reverse=True)))
        self._forms, self._by_first, self._longest = found, by_first, max(map(len, found))
        self._pattern = pattern

    def next(self, data: bytes, start: int) -> tuple[int, int] | None:
        """Where the next one stands."""
        found = self._pattern.search(data, start) if self._pattern else None
        return found.span() if found else None

    def may_begin(self, data: bytes, start: int) -> int:
        """From where on the end of the data may be the beginning of one; its length, if nowhere."""
        for place in range(max(start, len(data) - self._longest + 1), len(data)):
            forms = self._by_first.get(data[place])
            if forms and any(len(form) > len(data) - place and form.startswith(data[place:]) for form in forms):
                return place
        return len(data)


class Concealing:
    """One stream."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown now."""
        return self._shown(self._held + data, ended=False)

    def end(self) -> bytes:
        """The rest."""
        return self._shown(self._held, ended=True)

    def _shown(self, data: bytes, *, ended: bool) -> bytes:
        shown, at = [], 0
        while True:
            held = len(data) if ended else self._known.may_begin(data, at)
            found = self._known.next(data, at)
            if found is None or found[0] >= held:
                shown.append(data[at:held])
                self._held = data[held:]
                return b"".join(shown)
            shown += [data[at : found[0]], MASK.encode()]
            at = found[1]
