"""Credentials: revealed and restored whole, whatever their kind, and silent when damaged."""

import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mooring as m
from mooring.credentials import SHARED, Credentials, Issued, kind_of, restore, reveal
from mooring.types import Secret

CANARY = "cAnArY-c7e2"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


class AcmeKeys(Credentials, kw_only=True, tag="acme-keys"):
    """What a third party's plugin might add: its own shape, with bytes, spans and several secrets."""

    key_id: str
    key: Secret
    session: Secret | None = None
    salt: bytes = b""
    grace: timedelta = timedelta(0)
    scopes: tuple[str, ...] = ()


KINDS = (*SHARED, AcmeKeys)

TEXTS = st.text(max_size=12)
SECRETS = TEXTS.map(Secret)
BASE: dict[str, Any] = {
    "expires_at": st.none() | st.datetimes(timezones=st.just(UTC)),
    "narrowed": st.booleans(),
    "clamped": st.lists(TEXTS, max_size=2).map(tuple),
}
EACH = {
    m.BearerToken: st.builds(m.BearerToken, **BASE, token=SECRETS),
    m.KubernetesAccess: st.builds(
        m.KubernetesAccess,
        **BASE,
        server=TEXTS,
        cluster=TEXTS,
        certificate_authority=st.none() | TEXTS,
        token=st.none() | SECRETS,
        client_certificate=st.none() | TEXTS,
        client_key=st.none() | SECRETS,
        namespace=st.none() | TEXTS,
        insecure_skip_tls_verify=st.booleans(),
    ),
    m.RegistryLogin: st.builds(
        m.RegistryLogin, **BASE, registry=TEXTS, username=TEXTS, password=SECRETS, repository=st.none() | TEXTS
    ),
    AcmeKeys: st.builds(
        AcmeKeys,
        **BASE,
        key_id=TEXTS,
        key=SECRETS,
        session=st.none() | SECRETS,
        salt=st.binary(max_size=9),
        grace=st.timedeltas(timedelta(0), timedelta(days=9)),
        scopes=st.lists(TEXTS, max_size=2).map(tuple),
    ),
}


def test_every_kind_is_drawn() -> None:
    assert set(EACH) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_credentials_that_are_revealed_and_restored_are_the_same(kind: type[Credentials], data: st.DataObject) -> None:
    credentials = data.draw(EACH[kind])
    written = msgspec.json.decode(msgspec.json.encode(reveal(credentials)))

    assert restore(written, KINDS) == credentials
    assert restore(written, (kind,)) == credentials


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_credentials_never_show_their_secrets_by_themselves(kind: type[Credentials], data: st.DataObject) -> None:
    credentials = data.draw(EACH[kind])
    named = {
        field.name: Secret(CANARY)
        for field in msgspec.structs.fields(kind)
        if isinstance(getattr(credentials, field.name), Secret)
    }
    loaded = msgspec.structs.replace(credentials, **named)

    assert CANARY not in f"{loaded} {loaded!r}"
    if named:
        assert CANARY in str(reveal(loaded)), "reveal is for handing out"
        with pytest.raises(TypeError):
            msgspec.json.encode(loaded)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (m.BearerToken, "bearer-token"),
        (m.KubernetesAccess, "kubernetes-access"),
        (m.RegistryLogin, "registry-login"),
        (AcmeKeys, "acme-keys"),
    ],
)
def test_a_kind_has_a_name_that_is_written_with_it(kind: type[Credentials], name: str) -> None:
    assert kind_of(kind) == name


def login(**changes: Any) -> dict[str, Any]:
    credentials = m.RegistryLogin(
        expires_at=NOW, narrowed=True, registry="r", username="u", password=Secret(CANARY), clamped=("less",)
    )
    return reveal(credentials) | changes


def test_revealed_credentials_say_their_kind_and_are_plain() -> None:
    assert login() == {
        "type": "registry-login",
        "expires_at": "2026-01-02T03:04:05.000678Z",
        "narrowed": True,
        "clamped": ("less",),
        "registry": "r",
        "username": "u",
        "password": CANARY,
        "repository": None,
    }


DAMAGED = {
    "nothing": None,
    "a text": CANARY,
    "a list": [CANARY],
    "an empty table": {},
    "another kind": login(type=CANARY),
    "no kind": {key: value for key, value in login().items() if key != "type"},
    "a secret that is a number": login(password=815),
    "a secret that is a list": login(password=[CANARY]),
    "a secret that is nothing": login(password=None),
    "a secret that is not Unicode": login(password=CANARY + "\udcff"),
    "no secret": {key: value for key, value in login().items() if key != "password"},
    "an end that is no instant": login(expires_at=CANARY),
    "a flag that is a text": login(narrowed=CANARY),
    "a text that is a table": login(registry={CANARY: CANARY}),
}


@pytest.mark.parametrize("values", DAMAGED.values(), ids=DAMAGED)
def test_damaged_values_are_refused_and_never_quoted(values: Any) -> None:
    with pytest.raises(ValueError, match=r"^not credentials of a known kind$") as caught:
        restore(values, KINDS)

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_credentials_of_a_kind_that_nobody_offers_are_refused() -> None:
    for kinds in ((m.BearerToken,), ()):
        with pytest.raises(ValueError, match=r"^not credentials of a known kind$"):
            restore(login(), kinds)


def test_a_reply_answers_for_its_credentials() -> None:
    credentials = restore(login(), KINDS)
    issued = Issued(
        connector_id="i",
        connector="c",
        connector_type="t",
        resource_type="docker-registry",
        resource_id=None,
        access="read",
        consumer="me@here",
        issued_at=NOW,
        credentials=credentials,
    )

    assert (issued.expires_at, issued.narrowed, issued.clamped) == (NOW, True, ("less",))
    assert CANARY not in repr(issued)
