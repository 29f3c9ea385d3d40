"""Container registries for mooring: Docker Hub and any other that speaks the distribution protocol.

`connector` is the plugin; importing it loads no SDK. `RegistryToken` is what a caller takes away for one repository.
"""

from __future__ import annotations

from mooring_docker.connector import connector
from mooring_docker.credentials import RegistryToken

__all__ = ["RegistryToken", "connector"]
