"""The OS keyring and the key ring file: keys are kept, or it is said in one line why not; no key is ever shown."""

import base64
import builtins
import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.errors import NoMasterKey
from mooring.store import MemoryStore
from mooring.testing import Fake
from mooring.vault import KEY_BYTES, KeyRing, Vault, _keyring, key_file, parse_keys

keyring_backend = pytest.importorskip("keyring.backend")

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX's modes and links")
CANARY = base64.b64encode(b"cAnArY-77c0" + bytes(21)).decode()


class Backend:
    """A keyring in memory, which does to each call what it is told."""

    priority = 5
    __module__ = "keyring.backends.SecretService"

    def __init__(self, on: Callable[[str], Any] | None = None) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.on = on or (lambda call: None)

    def get_password(self, service: str, name: str) -> Any:
        return self.on("get") or self.kept.get((service, name))

    def set_password(self, service: str, name: str, value: str) -> None:
        self.on("set")
        self.kept[service, name] = value

    def delete_password(self, service: str, name: str) -> None:
        self.on("delete")
        del self.kept[service, name]


def named(module: str, priority: float = 5) -> Backend:
    """A backend of this module."""
    return type("Keyring", (Backend,), {"__module__": module, "priority": priority})()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def use(*backends: Any) -> Any:
        monkeypatch.setattr(keyring_backend, "get_all_keyring", lambda: list(backends))
        return backends[0] if backends else None

    return use


def refused(call: Callable[[], object]) -> str:
    """What the error says, in one line, without the key."""
    with pytest.raises(NoMasterKey) as caught:
        call()
    said = "".join(traceback.format_exception(caught.value))
    assert CANARY.rstrip("=") not in said
    assert "\n" not in caught.value.message
    return caught.value.message


# One call


def test_what_is_kept_is_read_back_and_erased(use) -> None:
    backend = use(Backend())
    _keyring.write("k1", CANARY)
    assert backend.kept == {("mooring", "k1"): CANARY}
    assert _keyring.read("k1") == CANARY
    for _ in range(2):  # what is not there is gone
        _keyring.erase("k1")
        assert backend.kept == {}
    assert "holds no master key 'k1'; restore it there (service 'mooring')" in refused(lambda: _keyring.read("k1"))


def calls() -> list[Callable[[], object]]:
    return [lambda: _keyring.read("k1"), lambda: _keyring.write("k1", CANARY), lambda: _keyring.erase("k1")]


def test_a_keyring_that_fails_is_not_quoted(use) -> None:
    def fail(call: str) -> None:
        raise ValueError(f"cannot {call} {CANARY}")

    use(Backend(fail))
    for call in calls():
        assert refused(call) == "the OS keyring failed: ValueError; unlock it and try again"


@pytest.mark.parametrize("how", [SystemExit(CANARY), KeyboardInterrupt(CANARY)], ids=["exit", "interrupt"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_backend_that_tries_to_end_the_process_does_not(
    use, how: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(call: str) -> None:
        raise how

    use(Backend(leave))
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    for call in calls():
        assert "keyring" in refused(call)


def test_a_keyring_that_gives_back_something_else_did_not_keep_the_key(use) -> None:
    use(Backend(lambda call: "something else" if call == "get" else None))
    assert refused(lambda: _keyring.write("k1", CANARY)).startswith("the OS keyring did not keep the master key")


@pytest.mark.parametrize("kept", ["", "x", CANARY[:-5], base64.b64encode(bytes(31)).decode(), "é" * 44])
def test_a_keyring_that_holds_no_key_under_the_name(use, kept: str) -> None:
    use(Backend()).kept["mooring", "k1"] = kept
    (key,) = parse_keys("k1:keyring", "the test")
    said = refused(key.raw)
    assert said == "what the OS keyring holds for master key 'k1' is not 32 bytes in base64"


@pytest.mark.parametrize(
    "module",
    [
        "keyring.backends.fail",
        "keyring.backends.null",
        "keyring.backends.chainer",
        "keyrings.alt.file",
        "keyrings.backends.macOS",
        "keyring.backends.SecretService.plain",
        "keyring_pass",
        "sagecipher.keyring",
        "macOS",
        "x.keyring.backends.kwallet",
    ],
)
def test_a_backend_that_is_no_keyring_of_the_system_is_not_taken(use, module: str) -> None:
    use(named(module, 99))
    for call in calls():
        assert "there is no OS keyring here" in refused(call)
    real = named("keyring.backends.kwallet", 1)
    use(named(module, 99), real, named("keyring.backends.libsecret", 0.5))
    _keyring.write("k1", CANARY)
    assert real.kept


def test_the_backends_that_are_taken_exist(use) -> None:
    import keyring.backends

    folder = Path(keyring.backends.__file__).parent
    for name in _keyring.REAL:
        assert (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *more: Any) -> Any:
        if name.partition(".")[0] == "keyring":
            raise ModuleNotFoundError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", absent)
    for call in calls():
        assert refused(call).endswith("pip install keyring")


# A keyring that does not answer


@pytest.fixture
def hangs(use):
    """A backend that answers only after the test."""
    end = threading.Event()
    yield use(Backend(lambda call: end.wait() and None))
    end.set()
    for thread in threading.enumerate():
        if thread.name == "mooring keyring":
            thread.join(5)


def test_a_call_has_two_seconds(hangs) -> None:
    before = time.monotonic()
    said = refused(lambda: _keyring.read("k1"))
    assert said == "the OS keyring did not answer within 2 s; unlock it and try again"
    assert time.monotonic() - before < 6


def at(home: Path, store: MemoryStore) -> Any:
    return open_broker(settings=Settings(home=home), store=store, plugins=[Fake()], system_plugins=())


async def register(broker: m.Broker, name: str) -> None:
    config = {"key": m.Secret("s3cret")}
    await broker.register(name, type="fake", auth_method="key", config=config, verify=False)


@pytest.mark.anyio
async def test_the_event_loop_goes_on_while_a_keyring_does_not_answer(
    use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, end, hang = MemoryStore(), threading.Event(), False
    use(Backend(lambda call: end.wait() and None if hang else None))
    async with at(tmp_path, store) as broker:
        await broker.rotate_keys(into="keyring")
        await register(broker, "a")
    hang = True
    monkeypatch.setattr(_keyring, "LIMIT", timedelta(seconds=0.3))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await anyio.sleep(0.005)

    request = {"resource_type": "bucket", "resource_id": "a"}
    async with at(tmp_path, store) as broker, anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        for call in (
            lambda: register(broker, "b"),
            lambda: broker.secrets("a"),
            lambda: broker.issue("a", **request),
            lambda: broker.rotate_keys(into="keyring"),
        ):
            before = ticks
            with pytest.raises(NoMasterKey, match=r"did not answer within 0\.3 s"):
                await call()
            assert ticks - before >= 5
        assert [key.state for key in await broker.keys()] == ["active"], "to list them asks no keyring"
        with anyio.move_on_after(0.05) as scope:
            await broker.secrets("a")
        assert scope.cancelled_caught, "it can be cancelled before it has answered"
        tasks.cancel_scope.cancel()
    end.set()


@pytest.mark.anyio
async def test_no_verb_waits_for_the_keyring_in_the_event_loop(
    use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Backend())
    loop, real, asked = threading.get_ident(), _keyring._bounded, []

    def seen(work: Callable[[], Any]) -> Any:
        asked.append(threading.get_ident())
        return real(work)

    monkeypatch.setattr(_keyring, "_bounded", seen)
    store, request = MemoryStore(), {"resource_type": "bucket", "resource_id": "a"}
    verbs: list[Callable[[m.Broker], Any]] = [
        lambda broker: broker.rotate_keys(into="keyring"),
        lambda broker: register(broker, "a"),
        lambda broker: broker.secrets("a"),
        lambda broker: broker.issue("a", **request),
        lambda broker: broker.rotate_keys(into="keyring"),
        lambda broker: broker.verify("a"),
        lambda broker: broker.update("a", config={"size": 2}),
        lambda broker: broker.explain("a", **request),
        lambda broker: broker.check(),
        lambda broker: broker.prune_keys(),
        lambda broker: broker.rotate_keys(),
    ]
    for verb in verbs:
        async with at(tmp_path, store) as broker:  # which has fetched nothing yet
            with suppress(m.UnsupportedResource, m.ConfigError):
                await verb(broker)
    async with at(tmp_path, store) as late, at(tmp_path, store) as broker:
        before = await late.get("a")
        await broker.rotate_keys(into="keyring")
        await late._desk.write(store.replace, m_replaced(before))  # wrapped anew: it needs the old key and the new one
    assert len(asked) > 12
    assert loop not in asked


def m_replaced(connector: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(connector, version=connector.version + 1)


# A real one


REAL = """
import sys, anyio
from pathlib import Path
import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.testing import Fake
from mooring.vault import _keyring
async def main(home, act):
    async with open_broker(settings=Settings(home=home), plugins=[Fake()], system_plugins=()) as broker:
        if act == "make":
            await broker.rotate_keys(into="keyring")
            config = {"key": m.Secret("s3cret")}
            await broker.register("a", type="fake", auth_method="key", config=config)
            print(type(_keyring._backend()).__module__)
        else:
            print((await broker.secrets("a"))["key"].reveal())
            old = (await broker.keys())[0].id
            await broker.rotate_keys(into="keyring")
            await broker.prune_keys()
            try:
                _keyring.read(old)
            except m.NoMasterKey:
                print("erased")
            print((await broker.secrets("a"))["key"].reveal())
anyio.run(main, Path(sys.argv[1]), sys.argv[2])
"""
SESSION = """
printf 'a password' | gnome-keyring-daemon --unlock --components=secrets >/dev/null &&
"$1" -c "$2" "$3" make && "$1" -c "$2" "$3" use
"""


def session(tmp_path: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a D-Bus session of its own, whose services keep what they keep below the folder."""
    places = {name: str(tmp_path / name) for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    for place in places.values():
        Path(place).mkdir(mode=0o700)
    command = ["dbus-run-session", "--", "sh", "-c", script, "sh", *arguments]
    return subprocess.run(
        command, env=os.environ | places, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )


@pytest.mark.skipif(
    not (shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")),
    reason="needs a Secret Service: apt-get install dbus gnome-keyring",
)
def test_a_real_secret_service_keeps_the_keys(tmp_path: Path) -> None:
    done = session(tmp_path, SESSION, sys.executable, REAL, str(tmp_path / "home"))

    assert done.stdout.split() == ["keyring.backends.SecretService", "s3cret", "erased", "s3cret"], done.stderr
    (line,) = (tmp_path / "home" / "master.key").read_text().splitlines()
    assert line.endswith(":keyring")


@pytest.mark.skipif(not shutil.which("dbus-run-session"), reason="needs D-Bus: apt-get install dbus")
def test_a_session_without_a_secret_service_has_no_keyring(tmp_path: Path) -> None:
    patient = "_keyring.LIMIT *= 30"  # on a busy machine, finding out takes longer than anybody should wait
    read = f"from mooring.vault import _keyring; {patient}; _keyring.read('k1')"
    done = session(tmp_path, '"$1" -c "$2"', sys.executable, read)
    assert "NoMasterKey: there is no OS keyring here (a headless machine has none)" in done.stderr


# The key ring file


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_new_key_is_put_first_and_a_removed_one_is_gone(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "home" / "master.key")
    made = [ring.add("file") for _ in range(3)]

    assert [key.id for key in ring.load()] == [key.id for key in reversed(made)]
    assert ring.remove([made[1].id, "nobody"]) == [made[1].id]
    assert ring.remove([made[1].id]) == []
    assert [key.raw() for key in ring.load()] == [made[2].raw(), made[0].raw()]
    assert made[1].key.reveal() not in (tmp_path / "home" / "master.key").read_text()
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["master.key"]


def test_keys_in_the_keyring_are_listed_by_a_word(use, tmp_path: Path) -> None:
    backend = use(Backend())
    ring = KeyRing(tmp_path / "master.key")
    plain, kept = ring.add("file"), ring.add("keyring")

    assert lines(tmp_path / "master.key") == [f"{kept.id}:keyring", f"{plain.id}:{plain.key.reveal()}"]
    assert [key.source for key in ring.load()] == ["the OS keyring", str(tmp_path / "master.key")]
    assert len(ring.load()[0].raw()) == KEY_BYTES
    sealed = Vault(ring).seal("r", {})
    assert sealed.key_id == kept.id
    assert Vault(parse_keys(ring.load()[0].exported(), "a copy")).open("r", sealed) == {}
    ring.remove([kept.id])
    assert backend.kept == {}


@pytest.mark.parametrize(
    "text",
    ["k:Keyring", "k:keyring:", "keyring", "k:key ring", ":keyring", "k:keyring,k:keyring", f"k:keyring\nk:{CANARY}"],
)
def test_a_malformed_word_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    path.write_text(text)
    said = refused(KeyRing(path).load)
    assert said.startswith(f"master key {2 if text.count('k:') == 2 else 1} in {path} is not ")


def test_blanks_and_comments_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    path.write_text(f"# the new one\n\n a : keyring \n# the old one: x\nb:{CANARY}\n")
    ring = KeyRing(path)
    assert [(key.id, key.key is None) for key in ring.load()] == [("a", True), ("b", False)]
    new = ring.add("file")
    assert lines(path) == [new.line(), "a:keyring", f"b:{CANARY}"]


@POSIX
def test_a_ring_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    (tmp_path / "home").mkdir()
    target, path = tmp_path / "safe" / "keys", tmp_path / "home" / "master.key"
    first = KeyRing(target).add("file")
    path.symlink_to(target)
    ring = KeyRing(path)
    draft = target.with_name(".keys.0123456789abcdef")
    draft.touch()
    assert ring.take()
    assert not draft.exists(), "a draft of a process that was killed is swept where it was written"
    second = ring.add("file")
    ring.remove([first.id])
    ring.let_go()

    assert path.is_symlink()
    assert lines(target) == [second.line()]
    assert [file.name for file in target.parent.iterdir()] == ["keys"]


@POSIX
def test_a_changed_ring_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ring = KeyRing(tmp_path / "home" / "master.key")
        assert ring.take()
        ring.add("file")
        ring.add("file")
        ring.let_go()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


@POSIX
def test_a_ring_that_others_can_read_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    ring = KeyRing(path)
    first = ring.add("file")
    path.chmod(0o640)
    for call in (lambda: ring.add("file"), lambda: ring.remove([first.id]), ring.load):
        assert f"chmod 600 {path}" in refused(call)
    path.chmod(0o600)
    assert ring.load() == (first,)


@pytest.mark.parametrize("place", ["file", "keyring"])
@pytest.mark.parametrize("broken", ["fsync", "open", "replace"])
def test_a_full_disk_leaves_the_ring_as_it_was(
    use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, broken: str
) -> None:
    backend, path = use(Backend()), tmp_path / "master.key"
    ring = KeyRing(path)
    first = ring.add("file")

    def full(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        for call in (lambda: ring.add(place), lambda: ring.remove([first.id])):
            assert refused(call).startswith(f"the master key file {path} cannot be ")
    assert lines(path) == [first.line()]
    assert [file.name for file in tmp_path.iterdir()] == ["master.key"]
    assert backend.kept == {}, "a key that nobody knows of is not left in the keyring"
    ring.add(place)
    assert len(ring.load()) == 2


def test_a_full_disk_says_so_when_the_first_key_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for call in (KeyRing(tmp_path / "master.key").make, lambda: KeyRing(tmp_path / "master.key").add("file")):
        assert os.strerror(errno.ENOSPC) in refused(call)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "home" / "master.key"
    KeyRing(path).add("file")
    path.parent.chmod(0o500)
    for call in (KeyRing(path).take, lambda: KeyRing(path).add("file")):
        assert str(path) in refused(call)
    path.parent.chmod(0o700)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_ring_that_cannot_be_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(os, "open", fail)
    path = tmp_path / "home" / "master.key"
    said = refused(KeyRing(path).take)
    assert said == f"the master key file {path} cannot be changed: {error.strerror}; check its folder"


def test_a_ring_is_taken_once_and_a_process_that_dies_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    one, other = KeyRing(path), KeyRing(path)
    assert one.take()
    assert not other.take()
    other.let_go()  # which it does not hold
    assert not other.take()
    one.let_go()
    assert other.take()
    other.let_go()
    hold = "import sys; from pathlib import Path; from mooring.vault import KeyRing\n"
    hold += "ring = KeyRing(Path(sys.argv[1])); assert ring.take(); print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        assert not one.take()
        process.kill()
        process.wait(10)
    assert one.take()
    one.let_go()


def test_a_ring_that_another_process_makes_first_gets_the_new_key_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds the lock who makes the first key: a process that registers needs no rights beside the store's."""
    path = tmp_path / "master.key"
    link, first = os.link, []

    def slow(source: Any, target: Any) -> None:
        if not first:
            first.append(None)
            first.extend(KeyRing(path).make())
        link(source, target)

    monkeypatch.setattr(os, "link", slow)
    new = KeyRing(path).add("file")
    assert [key.id for key in key_file(path)] == [new.id, first[1].id]


def test_a_first_key_whose_draft_was_swept_is_the_one_of_who_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "master.key"
    link, first = os.link, []

    def slow(source: Any, target: Any) -> None:
        if not first:
            first.append(None)
            other = KeyRing(path)
            other.make()
            assert other.take()
            first.append(other.add("file"))
            other.let_go()
        link(source, target)

    monkeypatch.setattr(os, "link", slow)
    made = KeyRing(path).make()
    assert made[0].id == first[1].id
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
