"""What the kernel needs of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mooring.types import Connector


class Store(Protocol):
    """Connectors at rest. Every method may raise `StoreUnavailable` or `StoreCorrupt`."""

    async def add(self, connector: Connector) -> None:
        """Store a new connector.

        Raises:
            NameTaken: a connector of that name exists.
            StoreConflict: one of that id does.
        """
        ...

    async def find(self, name_or_id: str) -> Connector | None:
        """The connector of that id, else name, else unique beginning of an id (8 characters or more)."""
        ...

    async def list(
        self,
        *,
        type: str | None = None,
        auth_method: str | None = None,
        resource_type: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> list[Connector]:
        """Connectors by name, those that match all filters.

        Args:
            type: of this connector type.
            auth_method: of this auth method.
            resource_type: scoped to this resource type, or to none.
            labels: with these labels; None as a value stands for any value.
        """
        ...

    async def replace(self, connector: Connector) -> None:
        """Store a changed connector; its `version` must be one more than what is stored.

        Raises:
            StoreConflict: somebody else changed or deleted it since.
            NameTaken: its new name is another connector's.
        """
        ...

    async def delete(self, connector: Connector) -> None:
        """Remove a connector of exactly this version.

        Raises:
            StoreConflict: somebody else changed or deleted it since.
        """
        ...

    async def changes(self) -> int:
        """A number that differs from the last one if another process or connection has written since."""
        ...
