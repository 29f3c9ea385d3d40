"""From a connector type to the one plugin that serves it.

pluggy names, validates and blocks; the registry binds each plugin's hooks once into a typed route, and a call goes to
exactly one plugin. Entry points are loaded one by one, when they are asked for: a broken plugin is reported and left
out, and a command about one connector imports one plugin.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec
import pluggy

from mooring import hookspecs
from mooring.credentials import SHARED, Credentials, kind_of
from mooring.errors import (
    BrokenPlugin,
    MooringError,
    PluginConflict,
    UnknownAuthMethod,
    UnknownConnectorType,
    UnsupportedResource,
    suggest,
)
from mooring.hookspecs import (
    BlockingClientRequest,
    ClientRequest,
    Context,
    CredentialRequest,
    DiscoverRequest,
    Environment,
    Explanation,
    Lifted,
    LiftRequest,
    LoginChange,
    LoginRequest,
    LogoutRequest,
    RenderRequest,
    RevokeRequest,
    Served,
    ServeRequest,
    Tools,
    Unlifted,
    VerifyRequest,
)
from mooring.types import (
    AuthMethod,
    Config,
    ConnectorType,
    Identity,
    Resource,
    ResourceType,
    Struct,
    Unit,
    config_builder,
    unsealable,
)

CONNECTORS = "mooring.connectors"
SYSTEM = "mooring.system"

_COLOURS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "verify": ("a coroutine function (async def)", inspect.iscoroutinefunction),
    "issue_credentials": ("a coroutine function (async def)", inspect.iscoroutinefunction),
    "units": ("a coroutine function (async def)", inspect.iscoroutinefunction),
    "lift": ("a coroutine function (async def)", inspect.iscoroutinefunction),
    "lift_all": ("a coroutine function (async def)", inspect.iscoroutinefunction),
    "undo": ("a coroutine function (async def)", inspect.iscoroutinefunction),
    "revoke_all": ("a coroutine function (async def)", inspect.iscoroutinefunction),
    "discover": ("an async generator function (async def with yield)", inspect.isasyncgenfunction),
}
"""What each hook must be; the others are plain functions. There is no "await it if it happens to be awaitable"."""


class Route(Struct):
    """One plugin's hooks, bound and typed. A power that the plugin lacks is None."""

    type: ConnectorType
    distribution: str
    canonical: Callable[[str, str], str]
    authenticate: Callable[[Any, Context], AbstractAsyncContextManager[Any]]
    verify: Callable[[Any, VerifyRequest], Awaitable[Identity]]
    discover: Callable[[Any, DiscoverRequest], AsyncGenerator[Resource, None]]
    issue_credentials: Callable[[Any, CredentialRequest], Awaitable[Credentials]]
    qualify: Callable[[str, str, Mapping[str, Any]], str] | None = None
    covers: Callable[[str, str, str], bool] | None = None
    units: Callable[[Any, str], Awaitable[tuple[Unit, ...]]] | None = None
    lift: Callable[[LiftRequest], Awaitable[Lifted]] | None = None
    lift_all: Callable[[LiftRequest], Awaitable[tuple[Lifted | Unlifted, ...]]] | None = None
    explain: Callable[[Config, CredentialRequest], Explanation] | None = None
    render: Callable[[RenderRequest], str] | None = None
    environment: Callable[[Credentials], Environment] | None = None
    serve: Callable[[ServeRequest], Served] | None = None
    client: Callable[[ClientRequest], AbstractAsyncContextManager[Any]] | None = None
    blocking_client: Callable[[BlockingClientRequest], AbstractContextManager[Any]] | None = None
    login: Callable[[LoginRequest], LoginChange] | None = None
    logout: Callable[[LogoutRequest], LoginChange] | None = None
    undo: Callable[[Any, Mapping[str, str]], Awaitable[None]] | None = None
    revoke_all: Callable[[Any, RevokeRequest], Awaitable[str]] | None = None
    endpoint: Callable[[Config], str] | None = None
    lifespan: Callable[[Tools], AbstractAsyncContextManager[Any]] | None = None
    builders: dict[str, Callable[[Mapping[str, Any]], Config]] = msgspec.field(default_factory=dict)
    """Those of the auth methods that were used; see `build`."""

    def build(self, auth_method: str, values: Mapping[str, Any]) -> Config:
        """The configuration of an auth method; see `build_config`."""
        if auth_method not in self.builders:
            self.builders[auth_method] = config_builder(self.auth_method(auth_method).config)
        return self.builders[auth_method](values)

    @property
    def powers(self) -> tuple[str, ...]:
        """The optional powers that the plugin has."""
        return tuple(name for name in POWERS if getattr(self, name) is not None)

    @property
    def kinds(self) -> tuple[builtins.type[Credentials], ...]:
        """The credential kinds that it may issue: the shared ones and its own."""
        return tuple(dict.fromkeys((*SHARED, *self.type.credentials)))

    def auth_method(self, name: str) -> AuthMethod:
        """The auth method of that name, or `UnknownAuthMethod`."""
        if method := self.type.auth_method(name):
            return method
        known = (method.name for method in self.type.auth_methods)
        raise UnknownAuthMethod(
            f"connector type {self.type.name!r} has no auth method {name!r}; {suggest(name, known)}"
        )

    def resource_type(self, name: str) -> ResourceType:
        """The resource type of that name, or `UnsupportedResource`."""
        if kind := self.type.resource_type(name):
            return kind
        known = (kind.name for kind in self.type.resource_types)
        raise UnsupportedResource(f"connector type {self.type.name!r} does not reach {name!r}; {suggest(name, known)}")


POWERS = tuple(name for power in hookspecs.POWERS for name in vars(power) if hasattr(vars(power)[name], "mooring_spec"))


class Plugin(Struct):
    """What `mooring plugins` shows of one entry point."""

    name: str
    group: str
    distribution: str
    version: str
    powers: tuple[str, ...] = ()
    error: str | None = None


class Registry:
    """The connector plugins: those handed in, or the installed ones."""

    def __init__(self, plugins: Iterable[object] | None = None) -> None:
        """Take plugin objects, or None for the entry points that are installed."""
        self._routes: dict[str, Route | MooringError] = {}
        self._given = plugins is not None
        for plugin in plugins or ():
            route = bind(plugin)
            if route.type.name in self._routes:
                raise _conflict(route.type.name, ("two of the given plugins",))
            self._routes[route.type.name] = route

    @cached_property
    def _entries(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for entry in () if self._given else entry_points(group=CONNECTORS):
            found.setdefault(entry.name, []).append(entry)
        return found

    def names(self) -> tuple[str, ...]:
        """The connector types, also those whose plugin is broken. Imports no plugin."""
        return tuple(sorted({*self._routes, *self._entries}))

    def route(self, name: str) -> Route:
        """The plugin for a connector type.

        Raises:
            UnknownConnectorType: no plugin serves it.
            BrokenPlugin: its plugin cannot be used.
            PluginConflict: two distributions claim it.
        """
        if name not in self._routes:
            if name not in self._entries:
                hint = suggest(name, self.names())
                more = "" if hint.startswith("did you mean") else "; install the plugin that does"
                raise UnknownConnectorType(f"no plugin serves {name!r}; {hint}{more}")
            try:
                self._routes[name] = _load(name, self._entries[name])
            except MooringError as error:
                self._routes[name] = error
        route = self._routes[name]
        if isinstance(route, MooringError):
            raise type(route)(route.message)
        return route

    def routes(self) -> list[Route]:
        """Every plugin that works; the others are in `plugins`."""
        return [route for name in self.names() if not isinstance(route := self._try(name), MooringError)]

    def renders(self, credentials: Credentials) -> Route:
        """The plugin that renders and makes clients of this kind of credentials, whoever issued them.

        Raises:
            UnknownConnectorType: no installed plugin does.
            PluginConflict: two do.
        """
        kind = kind_of(credentials)
        routes = [route for route in self.routes() if any(kind_of(one) == kind for one in route.type.credentials)]
        if not routes:
            raise UnknownConnectorType(
                f"no installed plugin makes clients of {kind!r} credentials; take the credentials themselves: issue()"
            )
        if len(routes) > 1:
            raise _conflict(f"{kind} credentials", [route.distribution for route in routes])
        return routes[0]

    def plugins(self) -> list[Plugin]:
        """Every connector plugin, with what is wrong with it if anything is."""
        found = []
        for name in self.names():
            route = self._try(name)
            entries = self._entries.get(name, [])
            dist = entries[0].dist if entries else None
            found.append(
                Plugin(
                    name=name,
                    group=CONNECTORS,
                    distribution=", ".join(_distribution(entry) for entry in entries) or "(given)",
                    version=dist.version if dist else "",
                    powers=() if isinstance(route, MooringError) else route.powers,
                    error=route.message if isinstance(route, MooringError) else None,
                )
            )
        return found

    def _try(self, name: str) -> Route | MooringError:
        try:
            return self.route(name)
        except MooringError as error:
            return error


def _load(name: str, entries: list[EntryPoint]) -> Route:
    if len(entries) > 1:
        raise _conflict(name, [_distribution(entry) for entry in entries])
    entry = entries[0]
    try:
        plugin = entry.load()
    except Exception as error:  # noqa: BLE001  whatever a foreign module raises while it is imported
        reason = f"{type(error).__name__}: {error}"
    else:
        return bind(plugin, name=name, distribution=_distribution(entry))
    raise BrokenPlugin(f"the plugin {name!r} of {_distribution(entry)} cannot be imported: {reason}")


def bind(plugin: object, *, name: str | None = None, distribution: str = "(given)") -> Route:
    """A plugin's hooks as a route, after pluggy has checked their names and arguments.

    Raises:
        BrokenPlugin: a hook is missing, unknown, or not what the contract says.
    """
    who = f"the plugin {name or type(plugin).__name__!r} of {distribution}"
    implementations = _hooks(plugin, who, (hookspecs.Connector, *hookspecs.POWERS))
    for hook in _required():
        if hook not in implementations:
            raise BrokenPlugin(f"{who} lacks the hook {hook!r}, which every connector has")
    hooks: dict[str, Any] = {hook: _positional(caller, who) for hook, caller in implementations.items()}
    try:
        described = hooks.pop("describe")()
    except Exception as error:  # noqa: BLE001  a plugin may raise anything
        reason = f"{type(error).__name__}: {error}"
    else:
        if not isinstance(described, ConnectorType):
            raise BrokenPlugin(f"{who}: describe() must give a ConnectorType, it gave {type(described).__name__}")
        if name is not None and described.name != name:
            raise BrokenPlugin(f"{who} describes itself as {described.name!r}; the entry point must have that name")
        _check_parts(described, who)
        return Route(type=described, distribution=distribution, **hooks)
    raise BrokenPlugin(f"{who}: describe() failed: {reason}")


def _check_parts(described: ConnectorType, who: str) -> None:
    """Refuse what is not of the contract, and a configuration that nobody can read, or whose secrets nobody seals."""
    for parts, kind in ((described.auth_methods, AuthMethod), (described.resource_types, ResourceType)):
        if not isinstance(parts, tuple) or not all(isinstance(part, kind) for part in parts):
            raise BrokenPlugin(f"{who}: describe() must name each {kind.__name__} in a tuple")
    for method in described.auth_methods:
        about = f"{who}: the configuration of auth method {method.name!r}"
        try:
            fields = unsealable(method.config)
        except Exception as error:  # noqa: BLE001  whatever an annotation raises when it is read
            reason = f"{type(error).__name__}: {error}"
        else:
            if fields:
                raise BrokenPlugin(
                    f"{about} has a secret inside of {', '.join(map(repr, fields))}, where it would not be sealed; "
                    "make each secret a field of its own, annotated Secret or Secret | None"
                )
            continue
        raise BrokenPlugin(f"{about} cannot be read: {reason}")


def _hooks(plugin: object, who: str, specifications: Iterable[type]) -> dict[str, pluggy.HookCaller]:
    """The hooks that a plugin implements, their names, arguments and colours checked."""
    if isinstance(plugin, type):
        raise BrokenPlugin(f"{who} is a class; the entry point must name an instance of it")
    manager = pluggy.PluginManager("mooring")
    for specification in specifications:
        manager.add_hookspecs(specification)
    try:
        manager.register(plugin, name=type(plugin).__name__)
        manager.check_pending()
        callers = manager.get_hookcallers(plugin) or ()
    except pluggy.PluginValidationError as error:
        reason = str(error).replace("\n", " ")
    else:
        hooks = {caller.name: caller for caller in callers if caller.spec}  # an optional hook may be of a newer mooring
        for hook, caller in hooks.items():
            wanted, is_it = _COLOURS.get(hook, ("a plain function", _is_plain))
            if not is_it(caller.get_hookimpls()[0].function):
                raise BrokenPlugin(f"{who}: its hook {hook!r} must be {wanted}")
        return hooks
    raise BrokenPlugin(f"{who} breaks the contract: {reason}")


def _positional(caller: pluggy.HookCaller, who: str) -> Callable[..., Any]:
    """The hook's function; a route calls it by position, so its arguments must be all there, and in order."""
    implementation = caller.get_hookimpls()[0]
    wanted = caller.spec.argnames if caller.spec else ()
    given = (*implementation.argnames, *implementation.kwargnames)
    if given[: len(wanted)] != wanted:
        raise BrokenPlugin(
            f"{who}: its hook {caller.name!r} takes ({', '.join(given)}), it must take ({', '.join(wanted)})"
        )
    return implementation.function


def _required() -> list[str]:
    return [name for name, hook in vars(hookspecs.Connector).items() if hasattr(hook, "mooring_spec")]


def _is_plain(function: Callable[..., Any]) -> bool:
    coloured = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    return not any(is_it(function) for is_it in coloured)


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def _conflict(name: str, distributions: Iterable[str]) -> PluginConflict:
    return PluginConflict(f"{name} is claimed by {' and '.join(sorted(distributions))}; uninstall one of them")


class SystemPlugins:
    """The plugins of the group `mooring.system`: every hook goes to all of them."""

    def __init__(self, plugins: Iterable[object] | None = None) -> None:
        """Take plugin objects, or None for the entry points that are installed."""
        self._manager = pluggy.PluginManager("mooring")
        self._manager.add_hookspecs(hookspecs.SystemPlugin)
        self.plugins: list[Plugin] = []
        for plugin in plugins or ():
            _hooks(plugin, f"the system plugin {type(plugin).__name__!r}", (hookspecs.SystemPlugin,))
            self._manager.register(plugin)
        for entry in entry_points(group=SYSTEM) if plugins is None else ():
            problem = self._register(entry)
            self.plugins.append(
                Plugin(
                    name=entry.name,
                    group=SYSTEM,
                    distribution=_distribution(entry),
                    version=entry.dist.version if entry.dist else "",
                    error=problem,
                )
            )

    def _register(self, entry: EntryPoint) -> str | None:
        try:
            plugin = entry.load()
            who = f"the system plugin {entry.name!r} of {_distribution(entry)}"
            _hooks(plugin, who, (hookspecs.SystemPlugin,))
            self._manager.register(plugin, name=f"{_distribution(entry)}:{entry.name}")
        except MooringError as error:
            return error.message
        except Exception as error:  # noqa: BLE001  one broken plugin must not stop the others
            return f"{type(error).__name__}: {error}"
        return None

    @property
    def hook(self) -> Any:
        """pluggy's callers: each gives the list of what the plugins answered."""
        return self._manager.hook

    def calls(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
        """One call of the hook for each plugin that has it, with the plugin's name: so that one may fail by itself."""
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            yield impl.plugin_name, partial(impl.function, *(arguments[name] for name in impl.argnames))
