"""The OS keyring: macOS Keychain, Windows Credential Locker, Secret Service, KWallet (library keyring).

Backends that keep secrets in the clear, or nowhere, are not taken. A keyring may ask its user, or nobody at all, so
every call has `LIMIT`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from mooring.errors import NoMasterKey

T = TypeVar("T")

SERVICE = "mooring"
LIMIT = timedelta(seconds=2)
REAL = ("macOS", "Windows", "SecretService", "libsecret", "kwallet")
"""The backends of the library that are a keyring of an operating system or desktop."""


def read(key_id: str) -> str:
    """The key of that id.

    Raises:
        NoMasterKey: there is none, or no keyring, or it did not answer within `LIMIT`.
    """

    def work() -> str | None:
        found: str | None = _backend().get_password(SERVICE, key_id)
        return found

    found = _bounded(work)
    if found is None:
        raise NoMasterKey(
            f"the OS keyring holds no master key {key_id!r}; restore it there (service {SERVICE!r}), "
            "or give the key in MOORING_MASTER_KEY"
        )
    return found


def write(key_id: str, key: str) -> None:
    """Keep a key, and see that it is kept.

    Raises:
        NoMasterKey: as `read`, or the keyring gave back something else.
    """

    def work() -> bool:
        backend = _backend()
        backend.set_password(SERVICE, key_id, key)
        return bool(backend.get_password(SERVICE, key_id) == key)

    if not _bounded(work):
        raise NoMasterKey("the OS keyring did not keep the master key; keep it in a file: --into file")


def erase(key_id: str) -> None:
    """Remove a key, if it is there.

    Raises:
        NoMasterKey: no keyring, or it did not answer within `LIMIT`.
    """

    def work() -> None:
        backend = _backend()
        if backend.get_password(SERVICE, key_id) is not None:
            backend.delete_password(SERVICE, key_id)

    _bounded(work)


def _backend() -> Any:
    """The best real backend that works here."""
    import keyring.backend

    found = [one for one in keyring.backend.get_all_keyring() if _is_real(one)]
    if not found:
        raise NoMasterKey(
            "there is no OS keyring here (a headless machine has none); keep the master key in its file, "
            "or give it in MOORING_MASTER_KEY"
        )
    return max(found, key=lambda one: one.priority)


def _is_real(backend: Any) -> bool:
    package, _, name = type(backend).__module__.rpartition(".")
    return package == "keyring.backends" and name in REAL


def _bounded(work: Callable[[], T]) -> T:
    """Do it in a thread of its own, which is left alone if it takes too long."""
    results: list[T] = []
    failures: list[NoMasterKey] = []

    def run() -> None:
        try:
            results.append(work())
        except NoMasterKey as error:
            failures.append(error)
        except ModuleNotFoundError:
            failures.append(NoMasterKey("the OS keyring needs another package: pip install keyring"))
        except Exception as error:  # noqa: BLE001  a backend may raise anything, and quote anything
            failures.append(NoMasterKey(f"the OS keyring failed: {type(error).__name__}; unlock it and try again"))

    thread = threading.Thread(target=run, name="mooring keyring", daemon=True)
    thread.start()
    thread.join(LIMIT.total_seconds())
    if results:
        return results[0]
    if failures:
        raise failures[0]
    raise NoMasterKey(f"the OS keyring did not answer within {LIMIT.total_seconds():g} s; unlock it and try again")
