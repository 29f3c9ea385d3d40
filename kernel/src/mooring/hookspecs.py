"""The plugin contract: what a connector must do, and what it may.

A connector plugin is an object whose methods carry `@hookimpl`, named by an entry point of the group
`mooring.connectors` under the name of its connector type. `Connector` must be implemented whole; each of the other
Protocols is an optional power, present or absent. The same classes are pluggy's specifications, checked when a plugin
is loaded, and typing Protocols, checked by mypy and pyright.

`SystemPlugin` names the hooks of plugins in the group `mooring.system`, which extend mooring itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from mooring.credentials import Credentials
from mooring.errors import MooringError
from mooring.types import Access, Clock, Config, ConnectorType, Identity, Resource, Secret, Struct, Unit

if TYPE_CHECKING:
    import click

    from mooring.broker import Broker
    from mooring.bus import Bus
    from mooring.http import Http
    from mooring.limits import Limits
    from mooring.store import Store

hookspec = pluggy.HookspecMarker("mooring")
hookimpl = pluggy.HookimplMarker("mooring")

ConfigT = TypeVar("ConfigT", bound=Config, contravariant=True)
SessionT = TypeVar("SessionT")
SessionT_contra = TypeVar("SessionT_contra", contravariant=True)


class Tools(Struct):
    """What the kernel lends to a plugin for as long as the broker lives."""

    http: Http
    limits: Limits
    clock: Clock


class UndoLog(Protocol):
    """What issuing makes at the vendor, written down before it is made, so that it is removed whatever happens.

    The kernel keeps it for every plugin. What is not kept is undone when the request ends, or by the sweep of the next
    broker if the process dies; what is kept, when its time has come.
    """

    async def begin(self, step: Mapping[str, str]) -> str:
        """Write down what is about to be made: all that the plugin's `undo` needs to find it, and nothing secret.

        Returns:
            The entry's id.
        """
        ...

    async def keep(self, entry: str, until: datetime) -> None:
        """It is made, and in use until then; it counts once the credentials are handed out."""
        ...

    async def done(self, entry: str) -> None:
        """There is nothing to undo (any more)."""
        ...


class Context(Struct):
    """For whom a session is opened, and what it may use."""

    connector_id: str
    connector: str
    consumer: str
    tools: Tools
    undo: UndoLog
    """Where to write down what is made at the vendor."""
    expires_at: datetime | None = None
    """When the connector's own credentials end, where that is known."""
    shared: Any = None
    """What the plugin's own `lifespan` yielded."""

    @property
    def http(self) -> Http:
        """The kernel's HTTP client."""
        return self.tools.http

    @property
    def clock(self) -> Clock:
        """The kernel's clock."""
        return self.tools.clock


class VerifyRequest(Struct):
    """Are these credentials good: at all, for a resource type, for one resource?"""

    resource_type: str | None = None
    resource_id: str | None = None


class DiscoverRequest(Struct):
    """Which resources of a type are there, in one unit?"""

    resource_type: str
    unit: Unit = Unit()
    resource_id: str | None = None
    """Only this one; the plugin may then ask the vendor for just it."""


class CredentialRequest(Struct):
    """Credentials for this, no wider and no longer."""

    resource_type: str
    resource_id: str | None
    """Canonical; None where the type has one instance per connector and none was named."""
    access: Access
    ttl: timedelta | None
    """Already within the auth method's bounds; None where the method has none."""
    consumer: str
    allow_unnarrowed: bool = False
    allow_long_lived: bool = False
    connector: str = "CONNECTOR"
    """Its name, for what is said of it."""


class LiftRequest(Struct):
    """Make a configuration out of what the local machine has."""

    auth_method: str | None = None
    """Wanted, or None for the plugin's choice."""
    options: Mapping[str, Any] = {}
    """Fields that the caller gave already, such as a profile or a region."""
    allow_implicit: bool = False


class Lifted(Struct):
    """A configuration that was found on the local machine."""

    auth_method: str
    config: Config
    source: str
    """Where it was found, for people: `profile 'dev' in ~/.aws/credentials`."""
    expires_at: datetime | None = None
    name: str = ""
    """What to call the connector, where several were found."""


class Unlifted(Struct):
    """Something on the local machine that no configuration could be made of."""

    name: str
    error: MooringError
    """Why; what an error says never holds a secret."""
    auth_method: str = ""
    """What it would have been, where that is known."""
    source: str = ""
    """As of `Lifted`, where there is one."""


class RenderRequest(Struct):
    """Write credentials in one of the formats that the connector type names."""

    credentials: Credentials
    format: str
    variables: Mapping[str, str] = {}
    """The caller's environment; some formats answer as it asks (KUBERNETES_EXEC_INFO)."""


class EnvironmentFile(Struct):
    """A file that a program reads, and how it is told where it lies."""

    variable: str
    name: str
    """Its path below a folder of its own, such as `docker/config.json`."""
    content: Secret
    folder: bool = False
    """Whether the variable names the folder in which the file lies, not the file."""


class Environment(Struct):
    """What a program finds credentials by."""

    variables: dict[str, str | Secret | None]
    """None: unset, since one left from before would spoil the others."""
    files: tuple[EnvironmentFile, ...] = ()


class ServeRequest(Struct):
    """Answer a program of this machine that asks for credentials at an address, again whenever it needs some."""

    credentials: Credentials
    url: str
    """Where it asks: an address that only this machine reaches."""
    token: Secret
    """What it must send as `Authorization`."""


class Served(Struct):
    """The answer to such a program, and how it finds where to ask."""

    body: Secret
    environment: Environment
    content_type: str = "application/json"


class LoginRequest(Struct):
    """Let a vendor's own tool, on this machine, get credentials from mooring whenever it needs them."""

    credentials: Credentials
    """Some that were issued now: where they are good for. No secret of theirs is written anywhere."""
    connector: str
    resource_type: str
    resource_id: str | None
    access: Access
    command: tuple[str, ...]
    """The command line that issues such credentials; the plugin appends `--format` and what it is."""
    folder: Path
    """Where the plugin may keep what it must remember of it."""
    name: str | None = None
    """What to call the entry; the plugin's choice, if None."""
    file: Path | None = None
    """The tool's configuration file; its usual one, if None."""


class LogoutRequest(Struct):
    """Take back what `login` wrote for a connector, and nothing else."""

    connector: str
    resource_type: str | None
    resource_id: str | None
    folder: Path
    file: Path | None = None


class LoginChange(Struct):
    """What was changed on this machine."""

    file: str
    entries: tuple[str, ...]
    """The names of what was added or removed; empty if there was nothing to do."""
    backup: str | None = None
    """Where the file's former content is, if it had any."""
    notes: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    """What of mooring's environment the entry itself carries, such as `MOORING_HOME`."""


class RevokeRequest(Struct):
    """Take back what was issued, for a whole role."""

    before: datetime
    """What was issued before; credentials from now on are good."""


class ClientRequest(Struct):
    """Make a ready client of credentials; see `mooring.held` for what such a client needs."""

    credentials: Credentials
    renew: Callable[..., Awaitable[Credentials]]
    """`renew()` gives those that are good now; `renew(refused=...)` others than those that the vendor has refused."""
    resource_type: str
    resource_id: str | None


class BlockingClientRequest(Struct):
    """The same for synchronous hosts: `renew` blocks, and may be called from any thread."""

    credentials: Credentials
    renew: Callable[..., Credentials]
    resource_type: str
    resource_id: str | None


class Explanation(Struct):
    """What exactly issuing would do, without doing it."""

    narrowed: bool
    calls: tuple[str, ...]
    """The vendor's operations in order, such as `sts:AssumeRole`."""
    policy: dict[str, Any] | None = None
    """The exact policy that confines the credentials, where there is one."""
    notes: tuple[str, ...] = ()


class Connector(Protocol[ConfigT, SessionT]):
    """What every connector plugin does."""

    @hookspec
    def describe(self) -> ConnectorType:
        """The connector type: auth methods, resource types. Pure, and imports no vendor SDK.

        >>> from mooring.testing import example
        >>> example.describe().name
        'example'
        """
        ...

    @hookspec
    def canonical(self, resource_type: str, text: str) -> str:
        """The one form of a resource id that stands for all accepted ones. Pure.

        Raises:
            InvalidConfig: the text is no id of that type.

        >>> from mooring.testing import example
        >>> example.canonical("example-bucket", "example://b/")
        'b'
        """
        ...

    @hookspec
    def authenticate(self, config: ConfigT, context: Context) -> AbstractAsyncContextManager[SessionT]:
        """A session: an authenticated vendor client, good for concurrent use until the context ends.

        It should cost no call of the vendor beyond what authentication needs. The kernel opens one session a job and
        uses it from several tasks.

        Raises:
            AuthFailed: the vendor does not accept the credentials.

        >>> import anyio
        >>> from mooring.testing import example, example_context
        >>> async def session():
        ...     config = example.describe().auth_methods[0].config(user="u")
        ...     async with example.authenticate(config, example_context()) as opened:
        ...         return opened
        >>> anyio.run(session)
        'u'
        """
        ...

    @hookspec
    async def verify(self, session: SessionT, request: VerifyRequest) -> Identity:
        """Whom the vendor takes us for; with a resource, only if that is reachable.

        Raises:
            AuthFailed, AccessDenied, ResourceNotFound, Unreachable.

        >>> import anyio
        >>> from mooring.hookspecs import VerifyRequest
        >>> from mooring.testing import example
        >>> anyio.run(example.verify, "u", VerifyRequest()).subject
        'u'
        """
        ...

    @hookspec
    def discover(self, session: SessionT, request: DiscoverRequest) -> AsyncGenerator[Resource, None]:
        """The resources of one type in one unit, as they are found, with canonical ids, each once.

        Opens no cancel scope and no task group around a `yield`; the kernel closes it with `aclosing`.

        >>> import anyio
        >>> from mooring.hookspecs import DiscoverRequest
        >>> from mooring.testing import example
        >>> async def ids():
        ...     return [r.id async for r in example.discover("u", DiscoverRequest(resource_type="example-bucket"))]
        >>> anyio.run(ids)
        ['a', 'b']
        """
        ...

    @hookspec
    async def issue_credentials(self, session: SessionT, request: CredentialRequest) -> Credentials:
        """Credentials for exactly the request, with their real expiry, saying whether they are `narrowed`.

        Raises:
            NotNarrowed: the auth method cannot confine them and the request does not allow wider ones.
            LongLived: only credentials without an end could be had and the request does not allow it.

        >>> import anyio
        >>> from mooring.hookspecs import CredentialRequest
        >>> from mooring.testing import example
        >>> request = CredentialRequest(resource_type="example-bucket", resource_id="a", access="read", ttl=None,
        ...                             consumer="docs")
        >>> anyio.run(example.issue_credentials, "u", request).narrowed
        True
        """
        ...


class Qualify(Protocol):
    """Optional: ids that are complete only with the connector's settings (a bare cluster name and its region)."""

    @hookspec
    def qualify(self, resource_type: str, resource_id: str, settings: Mapping[str, Any]) -> str:
        """The canonical id, completed from the settings that are not secret. Pure.

        Raises:
            InvalidConfig: the settings do not decide it; the message names the forms that would.

        >>> from mooring.testing import powered
        >>> powered.qualify("example-bucket", "_", {"user": "u"})
        'u'
        """
        ...


class Covers(Protocol):
    """Optional: scopes that contain other ids (a bucket contains its prefixes)."""

    @hookspec
    def covers(self, resource_type: str, scope: str, resource_id: str) -> bool:
        """Whether the canonical `scope` contains the canonical id. Pure; equality is the kernel's own.

        >>> from mooring.testing import powered
        >>> powered.covers("example-bucket", "a", "a_logs"), powered.covers("example-bucket", "a", "b")
        (True, False)
        """
        ...


class Units(Protocol[SessionT_contra]):
    """Optional: discovery in several places, each asked by itself."""

    @hookspec
    async def units(self, session: SessionT_contra, resource_type: str) -> tuple[Unit, ...]:
        """The regions or accounts to ask for a resource type.

        >>> import anyio
        >>> from mooring.testing import powered
        >>> [unit.name for unit in anyio.run(powered.units, "u", "example-bucket")]
        ['north', 'south']
        """
        ...


class Lift(Protocol):
    """Optional: auto-configuration from the local machine."""

    @hookspec
    async def lift(self, request: LiftRequest) -> Lifted:
        """A configuration from what the machine has, reading nothing that was not asked for.

        Raises:
            NothingToLift: there is none. The message says where was looked.

        >>> import anyio
        >>> from mooring.hookspecs import LiftRequest
        >>> from mooring.testing import powered
        >>> anyio.run(powered.lift, LiftRequest(options={"user": "u"})).config.user
        'u'
        """
        ...


class Explain(Protocol[ConfigT]):
    """Optional: say exactly what issuing would do."""

    @hookspec
    def explain(self, config: ConfigT, request: CredentialRequest) -> Explanation:
        """The calls and the exact policy, without a call. Raises what issuing would raise before its first call.

        >>> from mooring.hookspecs import CredentialRequest
        >>> from mooring.testing import ExampleConfig, powered
        >>> request = CredentialRequest(resource_type="example-bucket", resource_id="a", access="read", ttl=None,
        ...                             consumer="docs")
        >>> powered.explain(ExampleConfig(user="u"), request).policy
        {'bucket': 'a'}
        """
        ...


class Render(Protocol):
    """Optional: output formats of the credential kinds that the type names."""

    @hookspec
    def render(self, request: RenderRequest) -> str:
        """The text of the credentials in that format, secrets in the clear.

        >>> from mooring import BearerToken, RenderRequest, Secret
        >>> from mooring.testing import powered
        >>> token = BearerToken(token=Secret("t"), expires_at=None, narrowed=True)
        >>> powered.render(RenderRequest(credentials=token, format="header"))
        'Authorization: Bearer t'
        """
        ...


class Client(Protocol):
    """Optional: a ready native client of the credential kinds that the type names."""

    @hookspec
    def client(self, request: ClientRequest) -> AbstractAsyncContextManager[Any]:
        """A client that renews its own credentials for as long as it lives.

        >>> import anyio
        >>> from mooring.testing import memory_broker, powered
        >>> async def token():
        ...     async with memory_broker(powered) as broker:
        ...         await broker.register("docs", type="example", config={"user": "u"})
        ...         async with broker.client("docs", resource_id="a") as client:
        ...             return (await client()).token.reveal()
        >>> anyio.run(token)
        'u:a'
        """
        ...


class BlockingClient(Protocol):
    """Optional: the same for synchronous hosts."""

    @hookspec
    def blocking_client(self, request: BlockingClientRequest) -> AbstractContextManager[Any]:
        """A client that renews its own credentials for as long as it lives.

        >>> from mooring import BearerToken, BlockingClientRequest, Secret
        >>> from mooring.testing import powered
        >>> token = BearerToken(token=Secret("t"), expires_at=None, narrowed=True)
        >>> request = BlockingClientRequest(credentials=token, renew=lambda: token, resource_type="t", resource_id="a")
        >>> with powered.blocking_client(request) as client:
        ...     client().token.reveal()
        't'
        """
        ...


class Environ(Protocol):
    """Optional: how a program finds the credential kinds that the type names."""

    @hookspec
    def environment(self, credentials: Credentials) -> Environment:
        """The variables and files of a program that shall use them. Pure.

        >>> from mooring import BearerToken, Secret
        >>> from mooring.testing import powered
        >>> token = BearerToken(token=Secret("t"), expires_at=None, narrowed=True)
        >>> powered.environment(token).variables["EXAMPLE_TOKEN"].reveal()
        't'
        """
        ...


class Serve(Protocol):
    """Optional: programs that ask for the credential kinds that the type names at an address, again and again."""

    @hookspec
    def serve(self, request: ServeRequest) -> Served:
        """What is answered there, and the variables that lead a program there. Pure.

        >>> from mooring import BearerToken, Secret, ServeRequest
        >>> from mooring.testing import powered
        >>> token = BearerToken(token=Secret("t"), expires_at=None, narrowed=True)
        >>> request = ServeRequest(credentials=token, url="http://127.0.0.1:1/", token=Secret("s"))
        >>> powered.serve(request).environment.variables["EXAMPLE_URL"]
        'http://127.0.0.1:1/'
        """
        ...


class Login(Protocol):
    """Optional: configure a vendor's own tool, for the credential kinds that the type names."""

    @hookspec
    def login(self, request: LoginRequest) -> LoginChange:
        """Write an entry that calls mooring: atomically, with a backup, and all else as it was. Called in a thread.

        Raises:
            InvalidConfig: the tool's file is broken, cannot be written, or has another entry of that name.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from mooring import BearerToken, LoginRequest, Secret
        >>> from mooring.testing import powered
        >>> token = BearerToken(token=Secret("t"), expires_at=None, narrowed=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     request = LoginRequest(credentials=token, connector="docs", resource_type="example-bucket",
        ...                            resource_id="a", access="read", command=("mooring", "issue"),
        ...                            folder=Path(folder))
        ...     powered.login(request).entries
        ('docs',)
        """
        ...


class Logout(Protocol):
    """Optional: the inverse of `login`."""

    @hookspec
    def logout(self, request: LogoutRequest) -> LoginChange:
        """Remove the entries that `login` wrote for a connector, and nothing else. Called in a thread.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from mooring import LogoutRequest
        >>> from mooring.testing import powered
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     request = LogoutRequest(connector="docs", resource_type=None, resource_id=None, folder=Path(folder))
        ...     powered.logout(request).entries
        ()
        """
        ...


class Undo(Protocol[SessionT_contra]):
    """Optional: remove what issuing made at the vendor (see `UndoLog`)."""

    @hookspec
    async def undo(self, session: SessionT_contra, step: Mapping[str, str]) -> None:
        """Remove what `step` says, if it is there. May be called again, and at once from several processes.

        >>> import anyio
        >>> from mooring.testing import powered
        >>> print(anyio.run(powered.undo, "u", {"made": "nothing"}))
        None
        """
        ...


class RevokeAll(Protocol[SessionT_contra]):
    """Optional: take back all that was issued before an instant, where it cannot be done for less."""

    @hookspec
    async def revoke_all(self, session: SessionT_contra, request: RevokeRequest) -> str:
        """Have the vendor refuse everything that the connector's role was issued before `request.before`.

        Others who use the same role lose their credentials too: it is called only where the caller has said so.

        Returns:
            What was done, in one sentence.

        Raises:
            NotPermitted: the auth method issues nothing that could be taken back so.

        >>> import anyio
        >>> from datetime import UTC, datetime
        >>> from mooring.hookspecs import RevokeRequest
        >>> from mooring.testing import powered
        >>> anyio.run(powered.revoke_all, "u", RevokeRequest(before=datetime(2026, 1, 1, tzinfo=UTC)))
        'every token of u from before 2026-01-01 00:00:00+00:00 is refused'
        """
        ...


class Endpoint(Protocol[ConfigT]):
    """Optional: the host that a connector's calls depend on."""

    @hookspec
    def endpoint(self, config: ConfigT) -> str:
        """Such as `sts.eu-west-1.amazonaws.com`. Pure. Connectors of the same one share a circuit breaker.

        >>> from mooring.testing import ExampleConfig, powered
        >>> powered.endpoint(ExampleConfig(user="u"))
        'example.test'
        """
        ...


class LiftAll(Protocol):
    """Optional: everything that the local machine has, each thing a connector of its own."""

    @hookspec
    async def lift_all(self, request: LiftRequest) -> tuple[Lifted | Unlifted, ...]:
        """Like `lift`, all of it; each with a `name`, which need not be a valid one. One that is unfit stops no other.

        Raises:
            NothingToLift: there is nothing at all. The message says where was looked.

        >>> import anyio
        >>> from mooring.hookspecs import LiftRequest
        >>> from mooring.testing import powered
        >>> [one.name for one in anyio.run(powered.lift_all, LiftRequest(options={"user": "u"}))]
        ['u']
        """
        ...


class Lifespan(Protocol):
    """Optional: what lives as long as the broker: shared SDK clients, pools."""

    @hookspec
    def lifespan(self, tools: Tools) -> AbstractAsyncContextManager[Any]:
        """Entered before the first session of the plugin, left when the broker closes; yields `Context.shared`.

        >>> import anyio
        >>> from mooring.testing import example_context, powered
        >>> async def shared():
        ...     async with powered.lifespan(example_context().tools) as pool:
        ...         return dict(pool)
        >>> anyio.run(shared)
        {'pool': 'open'}
        """
        ...


POWERS: tuple[type, ...] = (
    Qualify,
    Covers,
    Units,
    Lift,
    LiftAll,
    Explain,
    Render,
    Environ,
    Serve,
    Client,
    BlockingClient,
    Login,
    Logout,
    Undo,
    RevokeAll,
    Endpoint,
    Lifespan,
)
"""The optional powers, each a specification of its own with one hook."""


class SystemPlugin(Protocol):
    """What a plugin of the group `mooring.system` may do; every hook is optional and all plugins are called."""

    @hookspec
    def commands(self, cli: click.Group) -> None:
        """Add commands to the CLI.

        >>> import click
        >>> from mooring.testing import ExampleSystem
        >>> cli = click.Group()
        >>> ExampleSystem().commands(cli)
        >>> list(cli.commands)
        ['hello']
        """
        ...

    @hookspec
    def subscribe(self, bus: Bus) -> None:
        """Take events, by `bus.spawn` of a task that subscribes.

        >>> import anyio
        >>> from mooring.testing import ExampleSystem, example, memory_broker
        >>> async def seen():
        ...     system = ExampleSystem()
        ...     async with memory_broker(example, system_plugins=[system]) as broker:
        ...         await broker.register("docs", type="example", config={"user": "u"})
        ...     return system.seen
        >>> anyio.run(seen)
        ['ConnectorVerified', 'ConnectorRegistered']
        """
        ...

    @hookspec
    def open_store(self, url: str) -> AbstractAsyncContextManager[Store] | None:
        """A store for a URL whose scheme this plugin serves; None for any other.

        >>> from mooring.testing import ExampleSystem
        >>> ExampleSystem().open_store("postgresql://host/database") is None
        True
        """
        ...

    @hookspec
    def master_key(self, url: str) -> bytes | None:
        """The 32 bytes of the master key that a URL names, if this plugin serves its scheme.

        >>> from mooring.testing import ExampleSystem
        >>> len(ExampleSystem().master_key("example://key"))
        32
        """
        ...

    @hookspec
    def lifespan(self, broker: Broker) -> AbstractAsyncContextManager[None]:
        """Entered with the broker, for plugins that run something.

        >>> import anyio
        >>> from mooring.testing import ExampleSystem, memory_broker
        >>> async def running():
        ...     system = ExampleSystem()
        ...     async with memory_broker(system_plugins=[system]):
        ...         return system.running
        >>> anyio.run(running)
        True
        """
        ...
