"""A profile of the aws CLI and the SDKs that asks mooring for its keys, and its removal: nothing else is touched.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import mooring as m
from mooring_aws.credentials import GENERAL, AwsCredentials

NAME = re.compile(r"[\w.@+=/-]{1,128}", re.ASCII)
BEGIN, END = "# Begin of what mooring login wrote for ", "# End of what mooring login wrote for "
OWN_FILE, OWN_FOLDER = 0o600, 0o700
WRITABLE = 0o222
LOCK_SECONDS = 15.0
POLL_SECONDS = 0.02


def login(request: m.LoginRequest, credentials: AwsCredentials) -> m.LoginChange:
    """Add the profile; what was written before for the same connector under that name goes."""
    name = request.name or request.connector
    if not NAME.fullmatch(name):
        raise m.InvalidConfig("the profile's name is 1 to 128 letters, digits or _.@+=/-", field="name")
    with _alone(_path(request.file)) as file:
        return _login(request, credentials, name, file)


def _login(request: m.LoginRequest, credentials: AwsCredentials, name: str, file: _File) -> m.LoginChange:
    before = _without(file.text, request.connector, name)
    if name in _profiles(before, file.path):
        raise m.InvalidConfig(f"{file.path} has a profile {name!r} already; give another name with --name")
    keys = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    if name in _profiles(_text_of(keys), keys):
        raise m.InvalidConfig(f"{keys} has keys of a profile {name!r}, which go before; give another name with --name")
    backup = file.replace(before + _entry(request, name, credentials))
    return m.LoginChange(file=str(file.path), entries=(name,), backup=backup, notes=(f"use it with --profile {name}",))


def logout(request: m.LogoutRequest) -> m.LoginChange:
    """Remove what was written for the connector."""
    path = _path(request.file)
    if not path.parent.exists():
        return m.LoginChange(file=str(path), entries=())
    with _alone(path) as file:
        entries = tuple(_entries(file.text, request))
        after = file.text
        for name in entries:
            after = _without(after, request.connector, name)
        return m.LoginChange(file=str(path), entries=entries, backup=file.replace(after) if entries else None)


def _path(given: Path | None) -> Path:
    """The SDKs' configuration file; a link to it stays one."""
    named = given or Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config")
    return Path(os.path.realpath(named.expanduser()))


@contextmanager
def _alone(path: Path) -> Generator[_File, None, None]:
    """The file, with no other login or logout of ours at work on it, as far as the system has locks for that.

    The lock is on the folder: it leaves nothing behind, and does not go when the file is replaced.

    Raises:
        InvalidConfig: the folder cannot be had, or others do not let go of it.
    """
    try:
        path.parent.mkdir(mode=OWN_FOLDER, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY) if sys.platform != "win32" else None
    except OSError as error:
        raise m.InvalidConfig(f"{path} cannot be written: {error.strerror}; nothing was changed") from None
    try:
        if folder is not None:
            _lock(folder, path)
        yield _File(path)
    finally:
        if folder is not None:
            os.close(folder)


def _lock(folder: int, path: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    ends = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                break
            time.sleep(POLL_SECONDS)
        except OSError:  # some network file systems lock no folders; what was changed meanwhile is still seen
            return
        else:
            return
    raise m.InvalidConfig(f"another login or logout is at work on {path}; nothing was changed, try again")


class _File:
    """The SDKs' configuration file as it was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = _text_of(path)

    def replace(self, text: str) -> str | None:
        """Put a new text in its place, all at once; where it is kept what it was before mooring."""
        backup = self.path.with_name(f"{self.path.name}.before-mooring")
        kept = bool(self.text) and not (BEGIN in self.text and backup.exists())
        try:
            mode = self.path.stat().st_mode if self.path.exists() else OWN_FILE
            if mode & WRITABLE:
                if kept:
                    _write(backup, self.text, mode)
                _write(self.path, text, mode, was=self.text)
                return str(backup) if kept else None
            reason = "it is read-only"
        except OSError as error:
            reason = error.strerror or "it cannot be replaced"
        raise m.InvalidConfig(f"{self.path} cannot be written: {reason}; nothing was changed")


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode() if path.exists() else ""
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8"
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
    raise m.InvalidConfig(f"{path} cannot be read: {reason}")


def _write(path: Path, text: str, mode: int, was: str | None = None) -> None:
    """Write a file whole or not at all; not, if it no longer is what it was."""
    number, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as sink:
            sink.write(text.encode())
            sink.flush()
            os.fsync(sink.fileno())
        Path(draft).chmod(mode & 0o7777)
        if was is not None and _text_of(path) != was:
            raise m.InvalidConfig(f"{path} was changed by another program meanwhile; try again")
        Path(draft).replace(path)
    finally:
        with suppress(OSError):
            Path(draft).unlink(missing_ok=True)


def _profiles(text: str, path: Path) -> set[str]:
    """The profiles of a file of configuration or of keys."""
    parser = configparser.RawConfigParser(default_section="\n", strict=False)
    try:
        parser.read_string(text)
        words = [shlex.split(section) for section in parser.sections()]
    except (configparser.Error, ValueError):
        words = None
    if words is None:
        raise m.InvalidConfig(f"{path} is not a file that the SDKs of AWS could read; mend it first")
    return {one[-1] for one in words if len(one) == 1 or (len(one) > 1 and one[0] == "profile")}


def _entry(request: m.LoginRequest, name: str, credentials: AwsCredentials) -> str:
    command = shlex.join((*request.command, "--format", "credential-process"))
    lines = [f"credential_process = {command}"]
    if credentials.region:
        lines.append(f"region = {credentials.region}")
    endpoints = dict(credentials.endpoint_urls)
    if general := endpoints.pop(GENERAL, None):
        lines.append(f"endpoint_url = {general}")
    if endpoints:
        lines += [f"services = {name}", "", f"[services {name}]"]
        for service, url in sorted(endpoints.items()):
            lines += [f"{service.replace('-', '_')} =", f"  endpoint_url = {url}"]
    header = "[default]" if name == "default" else f"[profile {name}]"
    if any(not line.isprintable() for line in lines):
        raise m.InvalidConfig("the connector or its resource has a name that a profile cannot hold")
    about = _about(request.connector, name, request.resource_type, request.resource_id)
    return "\n".join(("", f"{BEGIN}{about}", header, *lines, f"{END}{about}", ""))


def _about(connector: str, name: str, resource_type: str, resource_id: str | None) -> str:
    return shlex.join((connector, name, resource_type, resource_id or ""))


def _entries(text: str, request: m.LogoutRequest) -> list[str]:
    """The names of what was written for a connector, and for a resource if one is named."""
    found = []
    for line in text.splitlines():
        if line.startswith(BEGIN):
            connector, name, resource_type, resource_id = shlex.split(line.removeprefix(BEGIN))
            wanted = (request.resource_type or resource_type, request.resource_id or resource_id)
            if connector == request.connector and wanted == (resource_type, resource_id):
                found.append(name)
    return found


def _without(text: str, connector: str, name: str) -> str:
    """The text as it was before an entry was written; it stood after an end of line of its own."""
    about = f"{shlex.quote(connector)} {shlex.quote(name)} "
    begin = re.search(rf"(?:\r?\n|\A){re.escape(BEGIN + about)}", text)
    if begin is None:
        return text
    end = re.compile(rf"^{re.escape(END + about)}[^\r\n]*\r?\n?", re.MULTILINE).search(text, begin.end())
    if end is None:
        raise m.InvalidConfig(f"what mooring login wrote for {connector!r} was changed since; remove it by hand")
    before, after = text[: begin.start()], text[end.end() :]
    joined = before and after and not before.endswith("\n") and not after.startswith(("\n", "\r\n"))
    return f"{before}\n{after}" if joined else before + after
