"""For plugin authors and embedders: complete example plugins, a scripted vendor, a broker in memory, and clocks."""

from mooring.testing._clocks import ManualClock, VirtualClock
from mooring.testing._example import Example, ExampleConfig, example, example_context
from mooring.testing._fake import Fake, FakeConfig, FakeSession, memory_broker
from mooring.testing._powered import ExampleSystem, PoweredExample, powered

__all__ = [
    "Example",
    "ExampleConfig",
    "ExampleSystem",
    "Fake",
    "FakeConfig",
    "FakeSession",
    "ManualClock",
    "PoweredExample",
    "VirtualClock",
    "example",
    "example_context",
    "memory_broker",
    "powered",
]
