"""The broker: register, verify, discover, issue, client; one file a verb."""

from mooring.broker._audit import AuditLine, AuditReport
from mooring.broker._backup import Report, Restored
from mooring.broker._books import Books
from mooring.broker._broker import Broker
from mooring.broker._desk import Budgets, Desk, Figures
from mooring.broker._discover import Discovery, Failed, Finished, Found
from mooring.broker._documents import Document, Documents
from mooring.broker._findings import STALE
from mooring.broker._keys import KeyStatus, Rotation
from mooring.broker._register import Changes
from mooring.broker._secrets import NamedSecrets
from mooring.broker._undo import Sweeper

__all__ = [
    "STALE",
    "AuditLine",
    "AuditReport",
    "Books",
    "Broker",
    "Budgets",
    "Changes",
    "Desk",
    "Discovery",
    "Document",
    "Documents",
    "Failed",
    "Figures",
    "Finished",
    "Found",
    "KeyStatus",
    "NamedSecrets",
    "Report",
    "Restored",
    "Rotation",
    "Sweeper",
]
