"""`agent`: a broker that stays, and an address where programs ask it for credentials."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import click

from mooring.broker._desk import checked, guard
from mooring.cli._broker import opening, quiet
from mooring.cli._edge import Run
from mooring.cli._endpoint import Answer, Endpoint, open_endpoint
from mooring.cli._environment import in_clear, owner, secrets_of, sound
from mooring.cli._output import encoded, put_exactly, say
from mooring.cli._process import begin
from mooring.cli._shells import SHELLS
from mooring.cli._wishes import Several, Wish, several_wishes
from mooring.credentials import kind_of
from mooring.errors import InvalidConfig, MooringError, VendorError
from mooring.hookspecs import Environment, Served, ServeRequest

if TYPE_CHECKING:
    from mooring.broker import Broker

FORMATS = ("json", *SHELLS)


@click.command("agent", cls=Several, examples=("mooring agent prod -r s3-bucket -i s3://team-models",))
@several_wishes("CONNECTOR...")
@click.option("-f", "--format", "format", type=click.Choice(FORMATS), default="env", show_default=True,
              help="How to write the variables.")  # fmt: skip
@click.pass_obj
def agent(run: Run, /, wishes: Sequence[Wish], rest: Sequence[str], format: str) -> None:
    """Serve credentials to programs of this machine, until Ctrl-C or another signal ends it.

    It prints the variables that lead a program to it, among them the token that it asks for. Each time a program asks,
    it gets credentials that are fresh, since what is in use is renewed before it ends; with kinds that a program can
    ask for: those of AWS.
    """
    from mooring.cli._exec import merged
    from mooring.cli._loop import run_interruptible

    if rest:
        raise InvalidConfig("agent runs no command; use: mooring exec --refresh CONNECTOR -- COMMAND")

    async def serve() -> None:
        import anyio

        async with open_agent(run, wishes, run.mask.learn) as environments:
            variables = in_clear(merged(environments))
            put_exactly(encoded("json", variables) if format == "json" else SHELLS[format](variables))
            sys.stdout.flush()
            say("Serving until Ctrl-C.")
            await anyio.sleep_forever()

    begin()
    for one in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, one):
            signal.signal(signal.Signals[one], signal.default_int_handler)
    with suppress(KeyboardInterrupt):  # it is how this ends
        run_interruptible(serve)


@asynccontextmanager
async def open_agent(
    run: Run, wishes: Iterable[Wish], learn: Callable[..., None]
) -> AsyncGenerator[list[Environment], None]:
    """A broker that renews, and an endpoint; yields what leads programs to each of the wishes.

    Raises:
        InvalidConfig: programs cannot ask for credentials of that kind.
    """
    with quiet(run):
        async with opening(run, refresh=True) as broker, open_endpoint() as endpoint:
            environments = []
            for number, wish in enumerate(wishes):
                one = _Serving(run, broker, endpoint, wish, learn)
                environments.append(await one.start(f"/{number}"))
            yield environments


class _Serving:
    """One wish, granted whenever somebody asks."""

    def __init__(self, run: Run, broker: Broker, endpoint: Endpoint, wish: Wish, learn: Callable[..., None]) -> None:
        self._run = run
        self._broker = broker
        self._endpoint = endpoint
        self._wish = wish
        self._learn = learn
        self._url = ""

    async def start(self, path: str) -> Environment:
        """Serve at a path, once it is known to work."""
        self._url = self._endpoint.add(path, self._answer)
        return (await self._served()).environment

    async def _answer(self) -> Answer:
        try:
            served = await self._served()
        except MooringError as error:
            status = HTTPStatus.BAD_GATEWAY if isinstance(error, VendorError) else HTTPStatus.INTERNAL_SERVER_ERROR
            told = self._run.told(error)
            say(f"Error: {told}")
            return Answer(status, told.encode())
        return Answer(HTTPStatus.OK, served.body.reveal().encode(), served.content_type)

    async def _served(self) -> Served:
        options: dict[str, Any] = self._wish.options
        issued = await self._broker.issue(self._wish.connector, **options)
        self._learn(*secrets_of(issued.credentials))
        route = owner(self._broker.registry, issued)
        if route is None or route.serve is None:
            raise InvalidConfig(
                f"programs cannot ask for {kind_of(issued.credentials)} credentials again and again; "
                "use: mooring exec CONNECTOR -- COMMAND"
            )
        request = ServeRequest(credentials=issued.credentials, url=self._url, token=self._endpoint.token)
        with guard(route, "serve"):
            served = checked(route, "serve", route.serve(request), Served)
            sound(route, served.environment)
        return served
