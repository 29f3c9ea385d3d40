"""mooring connects code to infrastructure.

Embedding: `async with mooring.open_broker() as broker: ...`; synchronous hosts: `mooring.blocking.open_broker()`.
Writing a plugin: `import mooring as m`; see `mooring.hookspecs` for the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    Explain,
    Explanation,
    Lifespan,
    Lift,
    Lifted,
    LiftRequest,
    Qualify,
    Render,
    RenderRequest,
    SystemPlugin,
    Tools,
    Units,
    VerifyRequest,
    hookimpl,
)
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

if TYPE_CHECKING:
    from mooring.assembly import open_broker
    from mooring.broker import Broker, Discovery, Failed, Finished, Found
    from mooring.http import Http

__version__ = "0.1.0"

_LAZY = {"Http": "mooring.http", "open_broker": "mooring.assembly"} | dict.fromkeys(
    ("Broker", "Discovery", "Failed", "Finished", "Found"), "mooring.broker"
)


def __getattr__(name: str) -> Any:
    """Load the rooms that describe-only users (plugins, `list-types`) do without."""
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in ("blocking", "testing"):
        return import_module(f"mooring.{name}")
    raise AttributeError(f"module 'mooring' has no attribute {name!r}")


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
    "LiftRequest",
    "Lifted",
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
    "StoreConflict",
    "StoreCorrupt",
    "StoreError",
    "StoreTooNew",
    "StoreUnavailable",
    "SystemPlugin",
    "Tampered",
    "Throttled",
    "Tools",
    "Unit",
    "Units",
    "UnknownAuthMethod",
    "UnknownConnector",
    "UnknownConnectorType",
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
