"""`doctor`: is everything as it should be, and if not, what to do?"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from mooring.broker._undo import step_of
from mooring.cli._broker import with_broker
from mooring.cli._edge import FAILED, Run
from mooring.cli._lazy import command
from mooring.cli._output import Bad, Table, emit, output_option, say
from mooring.cli._values import counted, remaining
from mooring.errors import InvalidConfig, MooringError, StoreError, VaultError, suggest
from mooring.types import Connector, Struct

if TYPE_CHECKING:
    from mooring.assembly import Settings
    from mooring.broker import Broker
    from mooring.store import UndoEntry

MAX_ASKED = 16
"""How many connectors are verified at once."""
AUDIT_SECONDS = 5.0
"""How long the audit log is looked through, at most."""
CLOCK_TOLERANCE = timedelta(minutes=1)
OTHERS = 0o077


class Check(Struct):
    """What was looked at, how it is, and what to do about it."""

    check: str
    status: Literal["ok", "warn", "fail", "skip"]
    detail: str


@command(
    "doctor",
    examples=(
        "mooring doctor",
        "mooring doctor --offline -o json",
    ),
)
@click.option("--offline", is_flag=True, help="Call no vendor.")
@output_option
@click.pass_obj
def doctor(run: Run, /, offline: bool, output: str) -> None:
    """Check the master key, the store, file modes, the clock, the plugins, and every connector with its vendor.

    Exit status: 7 if a check failed.
    """
    from mooring.assembly import settings_from

    settings = settings_from()
    checks = [_key(settings), *_modes(settings), *_plugins(), *_limits(settings)]
    try:
        checks += with_broker(run, lambda broker: _stored(run, broker, settings, offline=offline))
    except MooringError as error:
        checks.append(Check(check="store", status="fail", detail=run.told(error)))
    rows = [(one.check, Bad(one.status) if one.status == "fail" else one.status, one.detail) for one in checks]
    emit(output, msgspec.to_builtins(checks), Table(("CHECK", "STATUS", "DETAIL"), rows))
    if any(one.status == "fail" for one in checks):
        raise click.exceptions.Exit(FAILED)


def _key(settings: Settings) -> Check:
    from mooring.assembly import open_vault
    from mooring.registry import SystemPlugins

    text = settings.master_key.reveal() if settings.master_key else None
    vault = open_vault(settings, SystemPlugins(()))
    if text is not None and "://" in text:
        scheme = text.partition(":")[0]
        return Check(
            check="master key", status="ok", detail=f"from the plugin that serves {scheme}://, asked when needed"
        )
    try:
        if not vault.ready():
            detail = f"none yet; {settings.key_file} is made with the first secret"
            return Check(check="master key", status="ok", detail=detail)
        vault.fetch()
    except VaultError as error:
        return Check(check="master key", status="fail", detail=error.message)
    names = ", ".join(key.id for key in vault.keys)
    return Check(check="master key", status="ok", detail=f"{names} from {vault.keys[0].source}")


def _modes(settings: Settings) -> list[Check]:
    if os.name != "posix":
        return [Check(check="file modes", status="skip", detail="this system has none")]
    home = settings.home
    try:
        checks = [_mode(path) for path in (home, settings.cache_folder, *_files(settings)) if path.exists()]
        found = [check for check in checks if check is not None]
    except OSError as error:
        return [Check(check="file modes", status="fail", detail=f"{home} cannot be looked at: {error.strerror}")]
    detail = f"{home} is its owner's alone" if checks else f"{home} is made when it is needed"
    return found or [Check(check="file modes", status="ok", detail=detail)]


def _files(settings: Settings) -> list[Path]:
    stores = sorted(settings.home.glob(f"{settings.store_file.name}*"))
    return [settings.key_file, *stores, *settings.cache_folder.glob("*")]


def _mode(path: Path) -> Check | None:
    """What is wrong with the mode of a file or folder. Others may enter a folder, if they cannot read the files."""
    status = path.stat()
    mode, is_folder = stat.S_IMODE(status.st_mode), stat.S_ISDIR(status.st_mode)
    if not mode & OTHERS:
        return None
    right = "700" if is_folder else "600"
    detail = f"{path} is open to others (mode {mode:04o}); run: chmod {right} {path}"
    return Check(check="file modes", status="warn" if is_folder else "fail", detail=detail)


def _plugins() -> Iterator[Check]:
    from mooring.cli._plugins import installed

    found = installed()
    for one in found:
        detail = one.error or f"{one.distribution} {one.version}"
        yield Check(check=f"plugin {one.name}", status="fail" if one.error else "ok", detail=detail)
    if not found:
        detail = "no plugin is installed; install one, such as mooring-aws, from where mooring came from"
        yield Check(check="plugins", status="warn", detail=detail)


def _limits(settings: Settings) -> Iterator[Check]:
    """Names in MOORING_LIMITS that no limit has: what is said of them changes nothing."""
    from mooring.limits import DEFAULTS, parse_limits
    from mooring.registry import Registry

    try:
        changed = parse_limits(settings.limits)
    except InvalidConfig as error:
        yield Check(check="limits", status="fail", detail=error.message)
        return
    known = {limit.name for limit in DEFAULTS} | {
        limit.name for route in Registry().routes() for limit in route.type.limits
    }
    for name in sorted(changed.keys() - known):
        detail = f"MOORING_LIMITS names {name!r}, and no limit is called that; {suggest(name, known)}"
        yield Check(check="limits", status="warn", detail=detail)
    if changed and changed.keys() <= known:
        yield Check(check="limits", status="ok", detail=f"{counted(len(changed), 'limit')} changed by MOORING_LIMITS")


async def _stored(run: Run, broker: Broker, settings: Settings, *, offline: bool) -> list[Check]:
    report = await broker.check()
    others = [one for one in report.problems if one not in report.closed]
    held = counted(report.connectors, "connector")
    held += f", {counted(report.documents, 'document')}" if report.documents else ""
    place = "a plugin's store" if settings.store else str(settings.store_file)
    detail = "; ".join(others) or f"{place}, {held}"
    store = Check(check="store", status="fail" if others else "ok", detail=detail)
    try:
        connectors = await broker.list()
    except StoreError:  # the report tells
        return [store]
    checks = [
        store,
        _seals(report.closed, report.connectors + report.documents),
        await _audit(run, broker),
        _clock(connectors),
    ]
    checks += _removals(await broker.unremoved(), connectors)
    if offline:
        return [*checks, Check(check="connectors", status="skip", detail="no vendor is called with --offline")]
    return [*checks, *await _connectors(run, broker, connectors)]


def _seals(problems: Sequence[str], count: int) -> Check:
    """Whether the master key at hand opens every seal: a lost or wrong one shows here, without a vendor."""
    if problems:
        return Check(check="seals", status="fail", detail=f"{len(problems)} of {count} closed: {problems[0]}")
    return Check(check="seals", status="ok", detail=f"{counted(count, 'seal')} opened")


async def _audit(run: Run, broker: Broker) -> Check:
    """Whether the audit log is as it was written; a very long one is left to `audit verify`."""
    import anyio

    try:
        with anyio.move_on_after(AUDIT_SECONDS):
            report = await broker.verify_audit()
            if report.problems:
                detail = f"{counted(len(report.problems), 'problem')}: {report.problems[0]}; see: mooring audit verify"
                return Check(check="audit log", status="fail", detail=detail)
            return Check(check="audit log", status="ok", detail=f"{report.entries} entries, as they were written")
    except StoreError as error:
        return Check(check="audit log", status="fail", detail=run.told(error))
    return Check(check="audit log", status="skip", detail="it is long; run: mooring audit verify")


def _clock(connectors: list[Connector]) -> Check:
    """Without a vendor there is only our own past to compare with."""
    if not connectors:
        return Check(check="clock", status="skip", detail="nothing is stored to compare it with")
    ahead = max(one.updated_at for one in connectors) - datetime.now(UTC)
    if ahead > CLOCK_TOLERANCE:
        minutes = ahead.total_seconds() / 60
        detail = (
            f"{counted(round(minutes), 'minute')} behind what is stored; "
            "set it, or vendors will refuse requests and expiry is wrong"
        )
        return Check(check="clock", status="fail", detail=detail)
    detail = "not behind what is stored"
    return Check(check="clock", status="ok", detail=detail)


def _removals(left: Sequence[UndoEntry], connectors: list[Connector]) -> Iterator[Check]:
    """What could not be removed at the vendors, by connector."""
    names = {one.id: one.name for one in connectors}
    for id in dict.fromkeys(one.connector_id for one in left):
        mine = [one for one in left if one.connector_id == id]
        then = "tried again by itself" if id in names else "its connector is gone or damaged: remove it by hand"
        attempts = counted(max(one.attempts for one in mine), "attempt")
        detail = f"{len(mine)} not removed at the vendor after {attempts}, {then}: {step_of(mine[0])}"
        more = ", ..." if mine[1:] else ""
        yield Check(check=f"removals of {names.get(id, id)}", status="warn", detail=f"{detail}{more}")


async def _connectors(run: Run, broker: Broker, connectors: list[Connector]) -> list[Check]:
    import anyio

    found: dict[str, Check] = {}
    limiter = anyio.CapacityLimiter(MAX_ASKED)

    async def ask(connector: Connector) -> None:
        async with limiter:
            found[connector.id] = await _connector(run, broker, connector)
        if sys.stderr.isatty():
            say(f"{len(found)} of {counted(len(connectors), 'connector')} asked: {connector.name}")

    async with anyio.create_task_group() as tasks:
        for connector in connectors:
            tasks.start_soon(ask, connector)
    return [found[connector.id] for connector in connectors]


async def _connector(run: Run, broker: Broker, connector: Connector) -> Check:
    name = f"connector {connector.name}"
    try:
        identity = await broker.verify(connector.id)
    except MooringError as error:
        return Check(check=name, status="fail", detail=run.mask(error.message))
    left = remaining(connector.expires_at, connector.expires_skew)
    detail = f"accepted as {identity.subject}" + (f"; its credentials end in {left}" if left else "")
    return Check(check=name, status="ok", detail=detail)
