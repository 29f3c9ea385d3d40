"""The example with every optional power, and a system plugin: the runnable examples of the rest of the contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

import mooring as m
from mooring.events import Event
from mooring.hookspecs import Tools
from mooring.testing._example import Example, ExampleConfig

if TYPE_CHECKING:
    import click

    from mooring.bus import Bus
    from mooring.store import Store


class PoweredExample(Example):
    """`Example`, with two regions, and prefixes in its buckets: `a_logs` lies in `a`."""

    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        """The example's type, which also owns bearer tokens."""
        return msgspec.structs.replace(super().describe(), credentials=(m.BearerToken,), formats=("header",))

    @m.hookimpl
    def qualify(self, resource_type: str, resource_id: str, settings: Mapping[str, Any]) -> str:
        """`_` is the user's own bucket."""
        return str(settings["user"]) if resource_id == "_" else resource_id

    @m.hookimpl
    def covers(self, resource_type: str, scope: str, resource_id: str) -> bool:
        """A bucket contains its prefixes."""
        return resource_id.startswith(f"{scope}_")

    @m.hookimpl
    async def units(self, session: str, resource_type: str) -> tuple[m.Unit, ...]:
        """Two regions."""
        return (m.Unit(name="north"), m.Unit(name="south"))

    @m.hookimpl
    async def discover(self, session: str, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource, None]:
        """One bucket in each region."""
        name = {"north": "a", "south": "b"}[request.unit.name]
        yield m.Resource(type=request.resource_type, id=name, region=request.unit.name)

    @m.hookimpl
    async def lift(self, request: m.LiftRequest) -> m.Lifted:
        """The user that was named."""
        if "user" not in request.options:
            raise m.NothingToLift("no user was named; give one")
        config = ExampleConfig(user=str(request.options["user"]))
        return m.Lifted(auth_method="password", config=config, source="the options")

    @m.hookimpl
    def explain(self, config: ExampleConfig, request: m.CredentialRequest) -> m.Explanation:
        """One call, for one bucket."""
        return m.Explanation(narrowed=True, calls=("example:GetToken",), policy={"bucket": request.resource_id})

    @m.hookimpl
    def render(self, request: m.RenderRequest) -> str:
        """A header line (RFC 6750 section 2.1)."""
        assert isinstance(request.credentials, m.BearerToken)  # noqa: S101  the one kind that the type names
        return f"Authorization: Bearer {request.credentials.token.reveal()}"

    @m.hookimpl
    @asynccontextmanager
    async def client(self, request: m.ClientRequest) -> AsyncGenerator[Any, None]:
        """A client that does nothing but renew its credentials."""
        yield request.renew

    @m.hookimpl
    @contextmanager
    def blocking_client(self, request: m.BlockingClientRequest) -> Generator[Any, None, None]:
        """The same, blocking."""
        yield request.renew

    @m.hookimpl
    async def lift_all(self, request: m.LiftRequest) -> tuple[m.Lifted, ...]:
        """The user that was named, as the only thing that there is."""
        return (msgspec.structs.replace(await self.lift(request), name=str(request.options["user"])),)

    @m.hookimpl
    def environment(self, credentials: m.Credentials) -> m.Environment:
        """The token, in a variable."""
        assert isinstance(credentials, m.BearerToken)  # noqa: S101  the one kind that the type names
        return m.Environment(variables={"EXAMPLE_TOKEN": credentials.token})

    @m.hookimpl
    def serve(self, request: m.ServeRequest) -> m.Served:
        """The token; the address and what it asks for, in variables."""
        assert isinstance(request.credentials, m.BearerToken)  # noqa: S101  the one kind that the type names
        environment = m.Environment(variables={"EXAMPLE_URL": request.url, "EXAMPLE_ASK_WITH": request.token})
        return m.Served(body=request.credentials.token, content_type="text/plain", environment=environment)

    @m.hookimpl
    def login(self, request: m.LoginRequest) -> m.LoginChange:
        """A line in a file: the command that gives a token."""
        file = request.file or request.folder / "logins"
        entry = request.name or request.connector
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{entry}: {' '.join((*request.command, '--format', 'header'))}\n")
        return m.LoginChange(file=str(file), entries=(entry,))

    @m.hookimpl
    def logout(self, request: m.LogoutRequest) -> m.LoginChange:
        """Without the lines of the connector."""
        file = request.file or request.folder / "logins"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        kept = [line for line in lines if line.partition(":")[0] != request.connector]
        if len(kept) == len(lines):
            return m.LoginChange(file=str(file), entries=())
        file.write_text("".join(kept), encoding="utf-8")
        return m.LoginChange(file=str(file), entries=(request.connector,))

    @m.hookimpl
    async def undo(self, session: str, step: Mapping[str, str]) -> None:
        """Nothing is ever made."""

    @m.hookimpl
    async def revoke_all(self, session: str, request: m.RevokeRequest) -> str:
        """What would be refused."""
        return f"every token of {session} from before {request.before} is refused"

    @m.hookimpl
    def endpoint(self, config: ExampleConfig) -> str:
        """The one host."""
        return "example.test"

    @m.hookimpl
    @asynccontextmanager
    async def lifespan(self, tools: Tools) -> AsyncGenerator[dict[str, str], None]:
        """A pool that all sessions share."""
        pool = {"pool": "open"}
        yield pool
        pool["pool"] = "closed"


class ExampleSystem:
    """A system plugin: a command, a count of events, a store and a key for the scheme `example`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.running = False

    @m.hookimpl
    def commands(self, cli: click.Group) -> None:
        """Add `hello`."""
        import click

        @cli.command()
        def hello() -> None:
            """Say hello."""
            click.echo("hello")

    @m.hookimpl
    def subscribe(self, bus: Bus) -> None:
        """Remember what happens."""

        async def listen() -> None:
            async with bus.subscribe(Event) as events:
                async for event in events:
                    self.seen.append(type(event).__name__)

        bus.spawn("example", listen)

    @m.hookimpl
    def open_store(self, url: str) -> AbstractAsyncContextManager[Store] | None:
        """A store in memory, for `example:`."""
        return _memory() if url.startswith("example:") else None

    @m.hookimpl
    def master_key(self, url: str) -> bytes | None:
        """A key that everybody knows, for `example://`."""
        return bytes(32) if url.startswith("example://") else None

    @m.hookimpl
    @asynccontextmanager
    async def lifespan(self, broker: m.Broker) -> AsyncGenerator[None, None]:
        """Run for as long as the broker lives."""
        self.running = True
        yield
        self.running = False


@asynccontextmanager
async def _memory() -> AsyncGenerator[Store, None]:
    from mooring.store import MemoryStore

    yield MemoryStore()


powered = PoweredExample()
contract: m.Connector[ExampleConfig, str] = powered
powers: tuple[m.Qualify, m.Covers, m.Units[str], m.Lift, m.Explain[ExampleConfig], m.Render] = (powered,) * 6
more_powers: tuple[m.Client, m.BlockingClient, m.Lifespan, m.LiftAll, m.Environ] = (powered,) * 5
local_powers: tuple[m.Serve, m.Login, m.Logout, m.Undo[str]] = (powered,) * 4
system: m.SystemPlugin = ExampleSystem()
