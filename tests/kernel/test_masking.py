"""Masking: a known secret shows in no form, whatever is around it."""

import base64
import urllib.parse

from hypothesis import given
from hypothesis import strategies as st

from mooring.masking import Masking
from mooring.types import MASK, Secret


@given(st.text(min_size=6), st.text(max_size=7), st.text(max_size=7))
def test_masking_finds_a_secret_in_every_form(secret: str, before: str, after: str) -> None:
    mask = Masking({})
    mask.learn(Secret(secret))
    text = before + secret + after
    assert secret not in mask(text) or secret in MASK
    encoded = text.encode(errors="surrogateescape")
    whole = base64.b64encode(encoded).decode()
    if len(secret.encode(errors="surrogateescape")) > 8:
        start = len(before.encode(errors="surrogateescape"))
        middle = whole[(start * 4 + 2) // 3 + 1 : (start + len(secret.encode(errors="surrogateescape"))) * 4 // 3 - 1]
        assert middle not in mask(whole)
    quoted = urllib.parse.quote(secret.encode(errors="surrogateescape"))
    assert quoted not in mask(quoted)


def test_masking_knows_the_environment() -> None:
    mask = Masking(
        {"MOORING_MASTER_KEY": "k1:q83vq83vq83v,k2:zzzzzzzzzzzz", "A_SECRET": "yes", "HOME": "/home/somebody"}
    )
    assert mask("q83vq83vq83v zzzzzzzzzzzz yes k1 /home/somebody") == f"{MASK} {MASK} yes k1 /home/somebody"


def test_only_the_last_are_known_where_there_is_a_bound() -> None:
    mask = Masking({}, most=2)
    mask.learn("first-secret", Secret("second-secret"))
    mask.learn("first-secret", "third-secret")
    assert mask("first-secret second-secret third-secret") == f"{MASK} second-secret {MASK}"
    assert mask("") == ""
