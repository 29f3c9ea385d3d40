"""The modules beside the tests are imported by their own names, here as when `run.py` is called by hand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
