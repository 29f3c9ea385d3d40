"""For plugin authors: a complete example connector, and clocks and stores for tests."""

from mooring.testing._example import Example, ExampleConfig, example, example_context

__all__ = ["Example", "ExampleConfig", "example", "example_context"]
