"""What all tests start from."""

import importlib.util
import signal
from pathlib import Path
from typing import Any

import pytest

# a shell starts what runs in the background with these ignored, which every child would inherit
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture
def terminal() -> Any:
    """The class of commands on a terminal; see tests/equipment/terminal.py."""
    path = Path(__file__).parent / "equipment" / "terminal.py"
    spec = importlib.util.spec_from_file_location("terminal", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Terminal
