"""What the tests of the kit need: pytest in pytest."""

pytest_plugins = ("pytester",)
