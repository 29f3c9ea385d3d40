"""Verify: does the vendor accept the connector's credentials, and reach what they are for?"""

from __future__ import annotations

from mooring.broker._desk import Desk, checked, doing, guard, within
from mooring.errors import MooringError
from mooring.events import ConnectorVerified, VerificationFailed
from mooring.hookspecs import VerifyRequest
from mooring.registry import Route
from mooring.types import Connector, Identity


async def verify(
    desk: Desk, connector: Connector, resource_type: str | None = None, resource_id: str | None = None
) -> Identity:
    """Whom the vendor takes the connector for; with a resource, only if the connector reaches it."""
    about = {"connector_id": connector.id, "connector": connector.name, "connector_type": connector.type}
    began = desk.clock.monotonic()
    try:
        with doing("verify", connector, resource_id):
            route = desk.registry.route(connector.type)
            target = desk.target(await desk.referred(connector), route, resource_type, resource_id)
            request = (
                VerifyRequest()
                if target is None
                else VerifyRequest(resource_type=target.resource_type, resource_id=target.resource_id)
            )
            identity = await _ask(desk, connector, route, request)
    except MooringError as error:
        now, name, took = desk.clock.now(), type(error).__name__, desk.since(began)
        failed = VerificationFailed(at=now, error=name, message=error.message, took=took, **about)
        desk.books.tell(failed, desk.entry("verify", connector, error))
        raise
    verified = ConnectorVerified(at=desk.clock.now(), subject=identity.subject, took=desk.since(began), **about)
    desk.books.tell(verified, desk.entry("verify", connector))
    return identity


async def _ask(desk: Desk, connector: Connector, route: Route, request: VerifyRequest) -> Identity:
    with within(desk.budgets.verify, "the vendor's answer"):
        async with desk.session(connector, route, desk.consumer) as session:
            with guard(route, "verify"):
                return checked(route, "verify", await route.verify(session, request), Identity)
    raise AssertionError  # `within` has raised
