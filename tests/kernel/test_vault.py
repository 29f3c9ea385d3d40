"""The vault: what it seals opens again under the right key, whole and in its place, and in no other way."""

import base64
import os
import re
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import NoMasterKey, Tampered, VaultError, WrongKey
from mooring.types import Sealed, Secret
from mooring.vault import KEY_BYTES, NONCE_BYTES, KeyRing, MasterKey, Vault, fingerprint, key_file, parse_keys

CANARY = "cAnArY-41b9"
POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")


def encoded(number: int) -> str:
    return base64.b64encode(bytes([number]) * KEY_BYTES).decode()


def master(name: str = "k1", number: int = 1) -> MasterKey:
    return MasterKey(id=name, key=Secret(encoded(number)), source="the test")


def vault(*keys: MasterKey) -> Vault:
    return Vault(keys or (master(),))


TEXTS = st.text(max_size=40)
VALUES = st.dictionaries(TEXTS, TEXTS.map(Secret), max_size=4)


# Sealing and opening


@given(TEXTS, VALUES)
def test_what_is_sealed_opens_as_it_was(record: str, values: dict[str, Secret]) -> None:
    assert vault().open(record, vault().seal(record, values)) == values


@given(st.text(min_size=6, max_size=40).map(lambda text: CANARY + text))
def test_sealed_bytes_hold_nothing_of_the_value_or_the_key(text: str) -> None:
    sealed = vault().seal("record", {"password": Secret(text)})
    raw = msgspec.msgpack.encode(sealed)

    for plain in (text.encode(), CANARY.encode(), base64.b64encode(CANARY.encode())[:12], bytes([1]) * 8):
        assert plain not in raw
    assert CANARY not in repr(sealed)


def test_nothing_repeats_when_the_same_is_sealed_again() -> None:
    one = vault()
    sealed = [one.seal("record", {"a": Secret("x"), "b": Secret("x")}) for _ in range(1500)]
    blobs = [blob for each in sealed for blob in (each.wrapped, *each.fields.values())]

    assert len({blob[:NONCE_BYTES] for blob in blobs}) == len(blobs) == 4500
    assert len({blob[NONCE_BYTES:] for blob in blobs}) == len(blobs)


@given(TEXTS, TEXTS)
def test_a_record_does_not_open_as_another(record: str, other: str) -> None:
    sealed = vault().seal(record, {"a": Secret("x")})
    if record != other:
        with pytest.raises(Tampered):
            vault().open(other, sealed)


def test_a_blob_moved_to_another_field_is_tampered() -> None:
    sealed = vault().seal("record", {"a": Secret("x"), "b": Secret("y")})
    swapped = msgspec.structs.replace(sealed, fields={"a": sealed.fields["b"], "b": sealed.fields["a"]})

    with pytest.raises(Tampered):
        vault().open("record", swapped)


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_the_bounds_of_record_and_field_cannot_be_shifted(record: str, field: str, other: str, name: str) -> None:
    """The record "ab" with the field "c" is not the record "a" with the field "bc"."""
    sealed = vault().seal(record, {field: Secret("x")})
    if (record, field) != (other, name):
        with pytest.raises(Tampered):
            vault().open(other, msgspec.structs.replace(sealed, fields={name: sealed.fields[field]}))


def test_a_blob_moved_to_another_record_is_tampered_with_or_without_its_data_key() -> None:
    one, other = (vault().seal(record, {"a": Secret(record)}) for record in ("one", "other"))

    for parts in ({"fields": one.fields}, {"wrapped": one.wrapped}, {"fields": one.fields, "wrapped": one.wrapped}):
        with pytest.raises(Tampered):
            vault().open("other", msgspec.structs.replace(other, **parts))


def test_an_older_blob_of_the_same_field_is_tampered() -> None:
    before, now = (vault().seal("record", {"a": Secret(value)}) for value in ("old", "new"))

    with pytest.raises(Tampered):
        vault().open("record", msgspec.structs.replace(now, fields=before.fields))


def test_a_field_that_was_dropped_or_added_is_tampered() -> None:
    sealed = vault().seal("record", {"a": Secret("x"), "b": Secret("y")})

    for fields in ({"a": sealed.fields["a"]}, {}, sealed.fields | {"c": sealed.fields["a"]}):
        with pytest.raises(Tampered):
            vault().open("record", msgspec.structs.replace(sealed, fields=fields))


SAMPLE = vault().seal("record", {"token": Secret(CANARY), "other": Secret("y")})
PARTS: dict[str, tuple[bytes, Callable[[bytes], Sealed]]] = {
    "check": (SAMPLE.check, lambda raw: msgspec.structs.replace(SAMPLE, check=raw)),
    "wrapped": (SAMPLE.wrapped, lambda raw: msgspec.structs.replace(SAMPLE, wrapped=raw)),
    "field": (
        SAMPLE.fields["token"],
        lambda raw: msgspec.structs.replace(SAMPLE, fields=SAMPLE.fields | {"token": raw}),
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_flipped_bit_is_noticed(part: str) -> None:
    raw, put = PARTS[part]
    opener = vault()
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WrongKey if part == "check" else Tampered):
            opener.open("record", put(bytes(flipped)))


@pytest.mark.parametrize("part", ["wrapped", "field"])
@given(data=st.data())
def test_every_cut_and_every_growth_is_noticed(part: str, data: st.DataObject) -> None:
    raw, put = PARTS[part]
    changed = data.draw(
        st.integers(0, len(raw) - 1).map(lambda end: raw[:end]) | st.binary(min_size=1).map(raw.__add__)
    )
    with pytest.raises(Tampered) as caught:
        vault().open("record", put(changed))

    assert caught.value.__context__ is None


def test_a_flipped_key_id_is_a_wrong_key() -> None:
    with pytest.raises(WrongKey):
        vault().open("record", msgspec.structs.replace(SAMPLE, key_id="k2"))


def test_a_renamed_field_is_tampered() -> None:
    renamed = {"token2": SAMPLE.fields["token"], "other": SAMPLE.fields["other"]}
    with pytest.raises(Tampered):
        vault().open("record", msgspec.structs.replace(SAMPLE, fields=renamed))


# Keys


def sentence(error: VaultError) -> str:
    """The message, if it is one sentence of one line."""
    assert re.fullmatch(r"[^\n.]+(\.\w[^\n.]*)*", error.message), error.message
    return error.message


def test_another_key_of_the_same_name_is_wrong_and_says_so_in_one_sentence() -> None:
    with pytest.raises(WrongKey) as caught:
        vault(master("k1", 2)).open("record", SAMPLE)

    said = sentence(caught.value)
    assert "'k1'" in said
    assert "the test" in said
    assert encoded(1) not in said
    assert encoded(2) not in said


def test_a_key_that_is_not_at_hand_is_named_beside_those_that_are() -> None:
    with pytest.raises(WrongKey) as caught:
        vault(master("k2", 1), master("k3", 3)).open("record", SAMPLE)

    said = sentence(caught.value)
    assert all(name in said for name in ("'k1'", "'k2'", "'k3'", "MOORING_MASTER_KEY"))


def test_the_first_key_seals_and_all_open() -> None:
    old, new = master("old", 1), master("new", 2)
    before = vault(old).seal("record", {"a": Secret("x")})
    both = vault(new, old)
    after = both.seal("record", {"a": Secret("y")})

    assert (before.key_id, after.key_id) == ("old", "new")
    assert both.open("record", before) == {"a": Secret("x")}
    assert both.open("record", after) == {"a": Secret("y")}
    assert vault(new).open("record", after) == {"a": Secret("y")}
    with pytest.raises(WrongKey):
        vault(new).open("record", before)


def test_keys_are_asked_for_once_and_only_when_they_are_needed() -> None:
    asked = []
    lazy = Vault(lambda: asked.append(1) or (master(),))
    assert asked == []

    lazy.open("record", lazy.seal("record", {"a": Secret("x")}))
    assert asked == [1]


def test_an_error_of_the_keys_source_comes_when_they_are_needed_and_each_time() -> None:
    def fail() -> tuple[MasterKey, ...]:
        raise NoMasterKey("no")

    for _ in range(2):
        with pytest.raises(NoMasterKey):
            Vault(fail).seal("record", {})


@pytest.mark.parametrize("use", [lambda none: none.seal("r", {}), lambda none: none.open("r", SAMPLE)])
def test_a_vault_without_keys_says_so(use) -> None:
    with pytest.raises(NoMasterKey, match="there is no master key") as caught:
        use(Vault(()))

    sentence(caught.value)


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES))
def test_the_check_tells_keys_apart_and_nothing_of_them(one: bytes, other: bytes) -> None:
    first, second = fingerprint(one), fingerprint(other)

    assert (first == second) is (one == other)
    assert len(first) == 8
    assert first not in one


def test_a_master_key_does_not_show_itself() -> None:
    assert encoded(1) not in f"{master()!r} {master()}"


# Wrapping anew, and keys that change while a process runs


@given(TEXTS, VALUES)
def test_what_is_wrapped_anew_opens_under_the_new_key_alone_and_its_fields_are_the_same(
    record: str, values: dict[str, Secret]
) -> None:
    old, new = master("old", 1), master("new", 2)
    before = vault(old).seal(record, values)
    after = vault(new, old).rewrap(record, before)

    assert (after.key_id, after.fields) == ("new", before.fields)
    assert after.wrapped != before.wrapped
    assert vault(new).open(record, after) == values
    with pytest.raises(WrongKey):
        vault(old).open(record, after)


def test_what_does_not_open_is_not_wrapped_anew() -> None:
    both = vault(master("new", 2), master())
    for name, sealed, error in (
        ("other", SAMPLE, Tampered),
        ("record", msgspec.structs.replace(SAMPLE, wrapped=SAMPLE.wrapped[:-1]), Tampered),
        ("record", msgspec.structs.replace(SAMPLE, fields={}), Tampered),
        ("record", msgspec.structs.replace(SAMPLE, key_id="gone"), WrongKey),
        ("record", msgspec.structs.replace(SAMPLE, check=b"x" * 8), WrongKey),
    ):
        with pytest.raises(error):
            both.rewrap(name, sealed)


class Source:
    """Keys that change, as another process changes them."""

    def __init__(self, *keys: MasterKey) -> None:
        self.keys = keys

    def __call__(self) -> tuple[MasterKey, ...]:
        return self.keys


def test_a_key_that_is_not_known_is_looked_for_and_seals_from_then_on() -> None:
    source = Source(master("old", 1))
    running = Vault(source)
    assert running.seal("r", {}).key_id == "old"
    source.keys = (master("new", 2), master("old", 1))
    assert running.seal("r", {}).key_id == "old", "it looks when it has a reason to"
    running.open("record", vault(master("new", 2)).seal("record", {}))
    assert running.seal("r", {}).key_id == "new"


def test_a_key_that_is_gone_from_its_source_opens_for_as_long_as_the_process_knows_it() -> None:
    source = Source(master("old", 1))
    running = Vault(source)
    sealed = running.seal("r", {"a": Secret("x")})
    source.keys = (master("new", 2),)
    running.reload()

    assert [key.id for key in running.keys] == ["new", "old"]
    assert running.open("r", sealed) == {"a": Secret("x")}
    with pytest.raises(WrongKey):
        Vault(source).open("r", sealed)


def test_another_key_under_a_known_name_is_taken_after_a_look() -> None:
    source = Source(master("k1", 1))
    running = Vault(source)
    before = running.seal("r", {})
    source.keys = (master("k1", 2),)
    running.reload()

    assert running.seal("r", {}).check == vault(master("k1", 2)).seal("r", {}).check != before.check
    with pytest.raises(WrongKey):
        running.open("r", before)


def test_a_source_that_has_become_malformed_is_said_and_changes_nothing() -> None:
    source = Source(master())
    running = Vault(lambda: source() or parse_keys("", "the test"))
    sealed = running.seal("r", {})
    source.keys = ()
    with pytest.raises(NoMasterKey):
        running.reload()
    assert running.open("r", sealed) == {}


def test_only_a_key_in_the_keyring_has_to_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mooring.vault._keyring.read", lambda key_id: encoded(2))
    one = Vault(parse_keys(f"kept:keyring,plain:{encoded(1)}", "the test"))

    assert one.waits()
    assert [one.waits(name) for name in ("kept", "plain", "nobody")] == [True, False, False]
    for name in ("nobody", "plain", None):
        one.fetch(name)
    assert not one.waits()
    assert one.seal("r", {}).check == fingerprint(bytes([2]) * KEY_BYTES)


def test_what_is_exported_is_read_again_and_the_word_is_not() -> None:
    assert parse_keys(master().exported(), "the test") == (master(),)
    (kept,) = parse_keys("k1:keyring", "the test")
    assert (kept.line(), kept.key, kept.source) == ("k1:keyring", None, "the OS keyring")


# Reading keys


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
RAWS = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)


@given(
    st.dictionaries(NAMES, RAWS, min_size=1, max_size=4),
    st.sampled_from([",", "\n", " , ", "\r\n", ",\n\n", "\n# old, and new: x\n"]),
    st.sampled_from(
        [base64.b64encode, base64.urlsafe_b64encode, lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")]
    ),
    st.sampled_from(["", " ", "\n"]),
)
def test_keys_are_read_in_their_order(
    keys: dict[str, bytes], between: str, encode: Callable[[bytes], bytes], around: str
) -> None:
    text = around + between.join(f"{name}:{encode(raw).decode()}" for name, raw in keys.items()) + around
    read = parse_keys(text, "the test")

    assert [(one.id, one.raw(), one.source) for one in read] == [(*item, "the test") for item in keys.items()]


SHORT = base64.b64encode(b"x" * 31).decode()
LONG = base64.b64encode(b"x" * 33).decode()
FORMS = {
    "nothing": "",
    "blanks": " \n, ,\n",
    "a comment": f"# {encoded(7)}",
    "a key without a name": encoded(7),
    "an empty name": f":{encoded(7)}",
    "a name with a blank": f"{CANARY} x:{encoded(7)}",
    "a name beyond ASCII": f"{CANARY}é:{encoded(7)}",
    "a name twice": f"a:{encoded(7)},a:{encoded(8)}",
    "the key before the name": f"{encoded(7)}:a",
    "the key before the name, URL-safe": f"{encoded(7).replace('=', '')}:a",
    "no key": "a:",
    "a short key": f"a:{SHORT}",
    "a long key": f"a:{LONG}",
    "not base64": f"a:{CANARY}!{encoded(7)}",
    "a key beyond ASCII": f"a:{encoded(7)}é",
    "a good one, then a bad one": f"a:{encoded(7)},b:{CANARY}",
    "a hexadecimal key": "a:" + "07" * KEY_BYTES,
    "a zero byte": f"a\0:{encoded(7)}",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_malformed_keys_are_refused_without_an_echo(text: str) -> None:
    with pytest.raises(NoMasterKey) as caught:
        parse_keys(text, "the environment")
    error = caught.value
    said = "".join(traceback.format_exception(error))

    assert "the environment" in sentence(error)
    assert error.__context__ is None
    for part in (CANARY, encoded(7), encoded(7).rstrip("="), encoded(8), SHORT, LONG, "07" * KEY_BYTES):
        assert part not in said


@given(st.text(max_size=60))
def test_text_of_any_kind_is_read_or_refused(text: str) -> None:
    try:
        keys = parse_keys(text, "the test")
    except NoMasterKey:
        return
    assert all(len(key.raw()) == KEY_BYTES for key in keys)


# The key file


def test_a_key_file_is_made_once_and_read_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "master.key"
    made = KeyRing(path).make()
    content = path.read_bytes()

    assert KeyRing(path).make() == key_file(path) == made
    assert path.read_bytes() == content
    assert [len(one.raw()) for one in made] == [KEY_BYTES]
    assert made[0].source == str(path)
    assert [file.name for file in path.parent.iterdir()] == ["master.key"], "no draft stays behind"


@POSIX
def test_a_key_file_and_its_folder_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        KeyRing(tmp_path / "home" / "master.key").make()
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "home" / "master.key").stat().st_mode) == 0o600


def test_two_key_files_hold_different_keys_with_different_ids(tmp_path: Path) -> None:
    one, other = (KeyRing(tmp_path / name).make()[0] for name in "ab")
    assert one.key != other.key
    assert one.id != other.id


def test_reading_makes_no_key_file(tmp_path: Path) -> None:
    assert key_file(tmp_path / "home" / "master.key") == ()
    assert list(tmp_path.iterdir()) == []


RACE = """
import sys
from pathlib import Path
from mooring.vault import KeyRing
print("ready", flush=True)
sys.stdin.read(1)  # all begin at once
print(KeyRing(Path(sys.argv[1])).make()[0].key.reveal())
"""


def test_many_processes_that_start_at_once_end_up_with_one_key(tmp_path: Path) -> None:
    path = tmp_path / "home" / "master.key"
    processes = [
        subprocess.Popen([sys.executable, "-c", RACE, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * len(processes)
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    said = {process.communicate(timeout=30)[0].strip() for process in processes}

    assert said == {KeyRing(path).make()[0].key.reveal()}
    assert [file.name for file in path.parent.iterdir()] == ["master.key"]


@POSIX
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o610, 0o777])
def test_a_key_file_that_others_may_touch_is_refused_and_says_what_to_do(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    path.write_text(f"a:{encoded(7)}")
    path.chmod(mode)

    with pytest.raises(NoMasterKey, match=f"mode {mode:04o}.*chmod 600 {re.escape(str(path))}") as caught:
        KeyRing(path).make()
    assert encoded(7) not in caught.value.message


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    path.write_text(f"# mine\nnew:{encoded(7)}\nold:{encoded(8)}\n")
    path.chmod(mode)

    assert [one.id for one in KeyRing(path).make()] == ["new", "old"]


def unusable(path: Path, content: bytes | None) -> Path:
    if content is None:
        path.mkdir()
    else:
        path.touch(mode=0o600)
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no master key"),
        (b"\n", "holds no master key"),
        (CANARY.encode(), "not of the form id:key"),
        (b"\xff\xfe" + CANARY.encode(), "it is not text"),
    ],
)
def test_a_key_file_that_holds_no_key_is_refused_without_an_echo_and_left_as_it_is(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = unusable(tmp_path / "master.key", content)
    with pytest.raises(NoMasterKey, match=reason) as caught:
        KeyRing(path).make()

    assert str(path) in sentence(caught.value)
    assert caught.value.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "place",
    [
        lambda folder: unusable(folder / "file", b"x") / "master.key",
        lambda folder: unusable(folder / "file", b"x") / "home" / "master.key",
        lambda folder: unusable(folder / "master.key", None).chmod(0o700) or folder / "master.key",
        lambda folder: (folder / "master.key").symlink_to(folder / "gone" / "key") or folder / "master.key",
        pytest.param(
            lambda folder: unusable(folder / "home", None).chmod(0o500) or folder / "home" / "master.key",
            marks=pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere"),
        ),
    ],
    ids=["below a file", "far below a file", "a folder", "a broken link", "a read-only folder"],
)
def test_a_key_file_that_cannot_be_made_or_read_is_no_master_key(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    path = place(tmp_path)
    with pytest.raises(NoMasterKey, match="cannot be used: ") as caught:
        KeyRing(path).make()

    assert str(path) in sentence(caught.value)
