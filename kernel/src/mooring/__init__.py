"""mooring connects code to infrastructure.

Embedding: `async with mooring.open_broker() as broker: ...`; synchronous hosts: `mooring.blocking.open_broker()`.
Writing a plugin: `import mooring as m`; see `mooring.hookspecs` for the contract.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mooring.assembly import open_broker
    from mooring.broker import Broker, Discovery, Failed, Finished, Found
    from mooring.credentials import BearerToken, Credentials, Issued, KubernetesAccess, RegistryLogin
    from mooring.errors import (
        AccessDenied,
        AuthFailed,
        BrokenPlugin,
        BrokerClosed,
        ConfigError,
        ConnectorExpired,
        InvalidConfig,
        KeyRetired,
        LongLived,
        MooringError,
        NameTaken,
        NoMasterKey,
        NothingToLift,
        NotNarrowed,
        NotPermitted,
        Overdue,
        PluginConflict,
        PluginError,
        RecordDamaged,
        Rejected,
        ResourceNotFound,
        StoreConflict,
        StoreCorrupt,
        StoreError,
        StoreTooNew,
        StoreUnavailable,
        Tampered,
        Throttled,
        UnknownAuthMethod,
        UnknownConnector,
        UnknownConnectorType,
        Unreachable,
        UnsupportedResource,
        VaultError,
        VendorError,
        WrongKey,
    )
    from mooring.hookspecs import (
        BlockingClient,
        BlockingClientRequest,
        Client,
        ClientRequest,
        Connector,
        Context,
        Covers,
        CredentialRequest,
        DiscoverRequest,
        Environ,
        Environment,
        EnvironmentFile,
        Explain,
        Explanation,
        Lifespan,
        Lift,
        LiftAll,
        Lifted,
        LiftRequest,
        Login,
        LoginChange,
        LoginRequest,
        Logout,
        LogoutRequest,
        Qualify,
        Render,
        RenderRequest,
        Serve,
        Served,
        ServeRequest,
        SystemPlugin,
        Tools,
        Undo,
        UndoLog,
        Units,
        Unlifted,
        VerifyRequest,
        hookimpl,
    )
    from mooring.http import Http
    from mooring.types import (
        Access,
        AuthMethod,
        Clock,
        Config,
        ConnectorType,
        Identity,
        Lifetime,
        Resource,
        ResourceType,
        Secret,
        Unit,
        build_config,
        fields_of,
        instant,
    )

__version__ = "0.1.0"

_ROOMS = ("errors", "hookspecs", "credentials", "types", "http", "broker", "assembly")


def __getattr__(name: str) -> Any:
    """Load a room when one of its names is first used: the light ones first, and none just to import mooring."""
    from importlib import import_module

    if name in ("blocking", "testing"):
        return import_module(f"mooring.{name}")
    for room in _ROOMS if name in __all__ else ():
        if (found := vars(import_module(f"mooring.{room}")).get(name)) is not None:
            globals()[name] = found
            return found
    raise AttributeError(f"module 'mooring' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Access",
    "AccessDenied",
    "AuthFailed",
    "AuthMethod",
    "BearerToken",
    "BlockingClient",
    "BlockingClientRequest",
    "BrokenPlugin",
    "Broker",
    "BrokerClosed",
    "Client",
    "ClientRequest",
    "Clock",
    "Config",
    "ConfigError",
    "Connector",
    "ConnectorExpired",
    "ConnectorType",
    "Context",
    "Covers",
    "CredentialRequest",
    "Credentials",
    "DiscoverRequest",
    "Discovery",
    "Environ",
    "Environment",
    "EnvironmentFile",
    "Explain",
    "Explanation",
    "Failed",
    "Finished",
    "Found",
    "Http",
    "Identity",
    "InvalidConfig",
    "Issued",
    "KeyRetired",
    "KubernetesAccess",
    "Lifespan",
    "Lifetime",
    "Lift",
    "LiftAll",
    "LiftRequest",
    "Lifted",
    "Login",
    "LoginChange",
    "LoginRequest",
    "Logout",
    "LogoutRequest",
    "LongLived",
    "MooringError",
    "NameTaken",
    "NoMasterKey",
    "NotNarrowed",
    "NotPermitted",
    "NothingToLift",
    "Overdue",
    "PluginConflict",
    "PluginError",
    "Qualify",
    "RecordDamaged",
    "RegistryLogin",
    "Rejected",
    "Render",
    "RenderRequest",
    "Resource",
    "ResourceNotFound",
    "ResourceType",
    "Secret",
    "Serve",
    "ServeRequest",
    "Served",
    "StoreConflict",
    "StoreCorrupt",
    "StoreError",
    "StoreTooNew",
    "StoreUnavailable",
    "SystemPlugin",
    "Tampered",
    "Throttled",
    "Tools",
    "Undo",
    "UndoLog",
    "Unit",
    "Units",
    "UnknownAuthMethod",
    "UnknownConnector",
    "UnknownConnectorType",
    "Unlifted",
    "Unreachable",
    "UnsupportedResource",
    "VaultError",
    "VendorError",
    "VerifyRequest",
    "WrongKey",
    "build_config",
    "fields_of",
    "hookimpl",
    "instant",
    "open_broker",
]
