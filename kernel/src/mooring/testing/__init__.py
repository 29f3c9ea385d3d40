"""For plugin authors and embedders: complete example plugins, a scripted vendor, a broker in memory, and clocks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mooring.testing._example import Example, ExampleConfig, example, example_context

if TYPE_CHECKING:
    from mooring.testing._clocks import ManualClock, VirtualClock
    from mooring.testing._conformance import ConnectorConformance, Subject
    from mooring.testing._fake import Fake, FakeConfig, FakeSession, memory_broker
    from mooring.testing._powered import ExampleSystem, PoweredExample, powered

_LAZY = {
    "_clocks": ("ManualClock", "VirtualClock"),
    "_conformance": ("ConnectorConformance", "Subject"),
    "_fake": ("Fake", "FakeConfig", "FakeSession", "memory_broker"),
    "_powered": ("ExampleSystem", "PoweredExample", "powered"),
}


def __getattr__(name: str) -> Any:
    """Load what needs a broker when it is asked for: the example alone must describe itself as fast as any plugin."""
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ConnectorConformance",
    "Example",
    "ExampleConfig",
    "ExampleSystem",
    "Fake",
    "FakeConfig",
    "FakeSession",
    "ManualClock",
    "PoweredExample",
    "Subject",
    "VirtualClock",
    "example",
    "example_context",
    "memory_broker",
    "powered",
]
