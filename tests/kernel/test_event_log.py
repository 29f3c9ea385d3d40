"""The numbered event log: what another process missed, in order, from any number on."""

import subprocess
import sys
from pathlib import Path

import pytest

from mooring.assembly import Settings, open_broker
from mooring.testing import Fake

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

OTHER = """
import sys
from pathlib import Path
import anyio
from mooring.assembly import Settings, open_broker
from mooring.testing import Fake

async def main():
    async with open_broker(settings=Settings(home=Path(sys.argv[1])), plugins=[Fake()], system_plugins=()) as broker:
        await broker.update("mine", description="by another")

anyio.run(main)
"""


async def test_a_reader_goes_on_from_a_number_and_sees_what_other_processes_did(tmp_path: Path) -> None:
    async with open_broker(settings=Settings(home=tmp_path), plugins=[Fake()], system_plugins=()) as broker:
        assert (await broker.last_event(), await broker.logged(after=0)) == (0, [])
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        assert await broker.last_event() == 1
        subprocess.run([sys.executable, "-c", OTHER, str(tmp_path)], check=True, timeout=60)  # noqa: ASYNC221
        found = await broker.logged(after=1)
        # what is told of is written within a second, here when the other closes
        assert [(one.seq, one.event) for one in found] == [(2, "ConnectorUpdated"), (3, "ConnectorVerified")]
        assert found[0].body["connector"] == "mine"
        await broker.issue("mine", resource_type="bucket", resource_id="a")
        assert [one.event for one in await broker.logged(after=found[-1].seq)] == ["CredentialsIssued"]
        assert [one.seq for one in await broker.logged(after=0, most=2)] == [1, 2]
