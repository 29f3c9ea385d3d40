"""A vendor for the tests of the CLI: what it does is written in the connector's `mode`."""

import atexit
import base64
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import anyio
import msgspec

import mooring as m


class Key(m.Config):
    token: Annotated[m.Secret, msgspec.Meta(description="the token")]
    backup_token: m.Secret | None = None
    mode: str = "ok"
    regions: tuple[str, ...] = ("north",)
    tags: dict[str, str] = {}  # noqa: RUF012
    insecure: bool = False
    port: int = 443


class Role(m.Config):
    role: str
    token: m.Secret


class AcmeCredentials(m.Credentials, tag="acme"):
    user: str
    password: m.Secret


HOUR = timedelta(hours=1)


def quoting(token: str) -> str:
    """A text such as a vendor may answer, with the token in every form."""
    whole = base64.b64encode(f"user:{token}".encode()).decode()
    return f"bad {token}, {whole}, {urllib.parse.quote(token, safe='')}, {base64.b64encode(token.encode()).decode()}"


async def hang(how: str) -> None:
    """For a minute, in a way that heeds no cancellation."""

    def begun(child: int = 0) -> None:
        draft = Path(os.environ["ACME_HUNG"] + "-draft")
        draft.write_text(str(child))
        draft.rename(os.environ["ACME_HUNG"])

    def sleep() -> None:
        begun()
        time.sleep(60)

    def wait() -> None:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
            begun(child.pid)

    match how:
        case "loop":
            sleep()
        case "thread":
            await anyio.to_thread.run_sync(sleep, abandon_on_cancel=True)
        case "shielded":
            await anyio.to_thread.run_sync(sleep)
        case "executor":
            import asyncio

            await asyncio.to_thread(sleep)
        case "process":
            await anyio.to_thread.run_sync(wait, abandon_on_cancel=True)


def waits() -> None:
    """Tell, in the file ACME_SLOW, which process waits from now on."""
    draft = Path(os.environ["ACME_SLOW"] + "-draft")
    draft.write_text(str(os.getpid()))
    draft.rename(os.environ["ACME_SLOW"])


def last_words(token: str) -> None:
    """Quote a secret when nobody listens any more."""

    class Failing:
        def __del__(self) -> None:
            raise RuntimeError(token)

    def later() -> None:
        time.sleep(0.1)
        logging.getLogger("acme").error("said by a thread %s", token)
        raise RuntimeError(token)

    sys.acme_failing = Failing()  # type: ignore[attr-defined]
    atexit.register(logging.getLogger("acme").error, "said at exit %s", token)
    threading.Thread(target=later).start()


class Acme:
    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        life = m.Lifetime(minimum=HOUR / 4, default=HOUR, maximum=12 * HOUR)
        return m.ConnectorType(
            name="acme",
            title="Acme Cloud",
            auth_methods=(
                m.AuthMethod(name="key", config=Key, temporary=True, lifetime=life, description="By token."),
                m.AuthMethod(name="role", config=Role),
            ),
            resource_types=(
                m.ResourceType(name="acme-bucket", formats=("NAME", "acme://NAME"), permissions=("acme:List",)),
                m.ResourceType(
                    name="acme-account", instances=False, narrowable=False, auth_methods=("key",), ids="[0-9]*"
                ),
            ),
            credentials=(AcmeCredentials,),
            formats=("lines",),
            limits=(m.Limit(name="acme-api", per=("vendor",), where={"vendor": "acme"}, at_once=9, rate=2.5, burst=4),),
        )

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        if "?" in text:
            raise m.InvalidConfig(f"not an id of {resource_type}; write NAME or acme://NAME", field="resource_id")
        name = text.removeprefix("acme://")
        return f"{name.rstrip('/')}/" if "/" in name else name

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config: Key | Role, context: m.Context) -> AsyncGenerator[Key | Role]:
        token = config.token.reveal()
        match getattr(config, "mode", "ok"):
            case "deny":
                raise m.AuthFailed("acme does not accept the token; give another")
            case "leak":
                raise m.Rejected(quoting(token)) from ValueError(quoting(token))
            case "boom":
                raise RuntimeError(quoting(token))
            case "wait":
                waits()
                await anyio.sleep(60)
            case "hang":
                await hang(os.environ["ACME_HANGS"])
            case "late":
                last_words(token)
        self.undoing = context.undo
        yield config

    @m.hookimpl
    async def verify(self, session: Key | Role, request: m.VerifyRequest) -> m.Identity:
        return m.Identity(subject="robot", account="4711")

    @m.hookimpl
    async def units(self, session: Key | Role, resource_type: str) -> tuple[m.Unit, ...]:
        return tuple(m.Unit(name=name) for name in getattr(session, "regions", ("north",)))

    @m.hookimpl
    async def discover(self, session: Key | Role, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource]:
        mode = getattr(session, "mode", "ok")
        if request.resource_type == "acme-account":
            yield m.Resource(type="acme-account", id="4711")
            return
        if request.unit.name == "south":
            raise m.AccessDenied("acme does not show the south; ask for it")
        yield m.Resource(type="acme-bucket", id="first", region=request.unit.name)
        if mode == "many":
            for number in range(int(os.environ["ACME_MANY"])):
                yield m.Resource(type="acme-bucket", id=f"bucket-{number:06}", region=request.unit.name)
        if mode == "slow" or (mode == "many" and "ACME_SLOW" in os.environ):
            waits()
            await anyio.sleep(60)
        yield m.Resource(type="acme-bucket", id="second" if mode != "escape" else "\x1b[31msecond\nline")

    @m.hookimpl
    async def issue_credentials(self, session: Key | Role, request: m.CredentialRequest) -> m.Credentials:
        from datetime import UTC, datetime

        ends = datetime.now(UTC) + (request.ttl or HOUR)
        if "ACME_LIFE" in os.environ:
            ends = datetime.now(UTC) + timedelta(seconds=float(os.environ["ACME_LIFE"]))
        if getattr(session, "mode", "ok") in ("revocable", "stubborn"):
            entry = await self.undoing.begin({"made": str(request.resource_id)})
            await self.undoing.keep(entry, ends)
        return AcmeCredentials(
            user="robot", password=m.Secret(os.environ.get("ACME_GIVES", "p4ss")), expires_at=ends, narrowed=True
        )

    @m.hookimpl
    async def undo(self, session: Key | Role, step: Mapping[str, str]) -> None:
        if getattr(session, "mode", "ok") == "stubborn":
            raise m.Rejected(quoting(session.token.reveal()))
        assert step == {"thing": "a"} or "made" in step

    @m.hookimpl
    async def lift(self, request: m.LiftRequest) -> m.Lifted:
        if "ACME_TOKEN" not in os.environ:
            raise m.NothingToLift("ACME_TOKEN is not set; set it")
        regions = tuple(request.options.get("regions", ("north",)))
        config = Key(token=m.Secret(os.environ["ACME_TOKEN"]), regions=regions, mode=request.options.get("mode", "ok"))
        return m.Lifted(auth_method="key", config=config, source="the environment (ACME_TOKEN)")

    @m.hookimpl
    async def lift_all(self, request: m.LiftRequest) -> tuple[m.Lifted | m.Unlifted, ...]:
        """`ACME_ALL` says what there is: `name:mode name:mode`; `broken` as a mode is what cannot be lifted."""
        found: list[m.Lifted | m.Unlifted] = []
        for entry in os.environ.get("ACME_ALL", "").split():
            name, _, mode = entry.partition(":")
            if mode == "broken":
                found.append(m.Unlifted(name=name, error=m.InvalidConfig("its file is no file; mend it")))
                continue
            config = Key(token=m.Secret(f"t0ken-{name}"), mode=mode, **request.options)
            found.append(m.Lifted(auth_method="key", config=config, source=f"the profile {name!r}", name=name))
        return tuple(found)

    @m.hookimpl
    def explain(self, config: Key | Role, request: m.CredentialRequest) -> m.Explanation:
        policy = {"allow": [request.access], "on": request.resource_id}
        return m.Explanation(narrowed=True, calls=("acme:Mint",), policy=policy, notes=("for you",))

    @m.hookimpl
    def environment(self, credentials: m.Credentials) -> m.Environment:
        assert isinstance(credentials, AcmeCredentials)
        files = ()
        if os.environ.get("ACME_FILES"):
            files = (m.EnvironmentFile(variable="ACME_FILE", name="acme.conf", content=credentials.password),)
        if os.environ.get("ACME_FILES") == "folder":
            deep = m.EnvironmentFile(
                variable="ACME_FOLDER", name="acme/conf.d/acme.conf", content=credentials.password, folder=True
            )
            files = (*files, deep)
        variables = {"ACME_USER": credentials.user, "ACME_PASSWORD": credentials.password, "ACME_OLD": None}
        return m.Environment(variables=variables, files=files)

    @m.hookimpl
    def login(self, request: m.LoginRequest) -> m.LoginChange:
        file = request.file or request.folder / "tool.conf"
        if file.exists():
            raise m.InvalidConfig(f"{file} has an entry already")
        lines = [request.name or request.connector, request.resource_type, *request.command]
        file.write_text("\n".join(lines))
        return m.LoginChange(file=str(file), entries=(lines[0],), backup="b", notes=("log in to it",))

    @m.hookimpl
    def logout(self, request: m.LogoutRequest) -> m.LoginChange:
        file = request.file or request.folder / "tool.conf"
        mine = file.exists() and file.read_text().split("\n")[1] == (request.resource_type or "acme-bucket")
        if mine:
            file.unlink()
        return m.LoginChange(file=str(file), entries=(request.connector,) if mine else ())

    @m.hookimpl
    def serve(self, request: m.ServeRequest) -> m.Served:
        assert isinstance(request.credentials, AcmeCredentials)
        variables = {"ACME_URL": request.url, "ACME_ASK_WITH": request.token, "ACME_OLD": None}
        return m.Served(body=request.credentials.password, environment=m.Environment(variables=variables))

    @m.hookimpl
    def render(self, request: m.RenderRequest) -> str:
        assert isinstance(request.credentials, AcmeCredentials)
        return f"ACME_USER={request.credentials.user}\nACME_PASSWORD={request.credentials.password.reveal()}\n"


connector = Acme()
