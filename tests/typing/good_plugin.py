"""A plugin as its author would write it; mypy and pyright, both strict, have nothing to say about it."""

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import mooring as m


class Token(m.Config):
    """Where the registry of moorings is, and the token it wants."""

    url: str
    token: m.Secret
    harbours: tuple[str, ...] = ()


class Harbour:
    """Berths, by API token."""

    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        hour = timedelta(hours=1)
        lifetime = m.Lifetime(minimum=hour / 4, default=hour, maximum=12 * hour)
        token = m.AuthMethod(name="token", config=Token, temporary=True, lifetime=lifetime)
        berth = m.ResourceType(name="berth", formats=("HARBOUR/NUMBER",))
        return m.ConnectorType(
            name="harbour", auth_methods=(token,), resource_types=(berth,), credentials=(m.BearerToken,)
        )

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        harbour, slash, number = text.removeprefix("harbour://").partition("/")
        if not slash or not number.isdigit():
            raise m.InvalidConfig(f"not a {resource_type}; write HARBOUR/NUMBER", field="resource_id")
        return f"{harbour}/{int(number)}"

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config: Token, context: m.Context) -> AsyncGenerator[m.Http, None]:
        yield context.http.at(config.url, authorization=f"Bearer {config.token.reveal()}")

    @m.hookimpl
    async def verify(self, session: m.Http, request: m.VerifyRequest) -> m.Identity:
        me = await session.get_json("/me")
        return m.Identity(subject=me["name"])

    @m.hookimpl
    async def discover(self, session: m.Http, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource, None]:
        for berth in await session.get_json(f"/harbours/{request.unit.name}/berths"):
            yield m.Resource(type=request.resource_type, id=berth["id"])

    @m.hookimpl
    async def issue_credentials(self, session: m.Http, request: m.CredentialRequest) -> m.Credentials:
        got = await session.post_json("/tokens", {"berth": request.resource_id, "access": request.access})
        return m.BearerToken(token=m.Secret(got["token"]), expires_at=m.instant(got["expires"]), narrowed=True)

    @m.hookimpl
    def qualify(self, resource_type: str, resource_id: str, settings: Mapping[str, Any]) -> str:
        return resource_id

    @m.hookimpl
    def covers(self, resource_type: str, scope: str, resource_id: str) -> bool:
        return resource_id.startswith(f"{scope}/")

    @m.hookimpl
    async def units(self, session: m.Http, resource_type: str) -> tuple[m.Unit, ...]:
        return tuple(m.Unit(name=name) for name in await session.get_json("/harbours"))

    @m.hookimpl
    async def lift(self, request: m.LiftRequest) -> m.Lifted:
        raise m.NothingToLift("there is no harbour on this machine; give the fields")

    @m.hookimpl
    async def lift_all(self, request: m.LiftRequest) -> tuple[m.Lifted, ...]:
        return ()

    @m.hookimpl
    def explain(self, config: Token, request: m.CredentialRequest) -> m.Explanation:
        return m.Explanation(narrowed=True, calls=(f"POST {config.url}/tokens",))

    @m.hookimpl
    def render(self, request: m.RenderRequest) -> str:
        return request.format

    @m.hookimpl
    def environment(self, credentials: m.Credentials) -> m.Environment:
        file = m.EnvironmentFile(variable="HARBOUR_FILE", name="berth", content=m.Secret("north/7"))
        return m.Environment(variables={"HARBOUR_TOKEN": m.Secret("t"), "HARBOUR_PROFILE": None}, files=(file,))

    @m.hookimpl
    def serve(self, request: m.ServeRequest) -> m.Served:
        return m.Served(body=request.token, environment=m.Environment(variables={"HARBOUR_URL": request.url}))

    @m.hookimpl
    def login(self, request: m.LoginRequest) -> m.LoginChange:
        return m.LoginChange(file=str(request.file or request.folder), entries=(request.connector,))

    @m.hookimpl
    def logout(self, request: m.LogoutRequest) -> m.LoginChange:
        return m.LoginChange(file=str(request.file or request.folder), entries=())

    @m.hookimpl
    async def undo(self, session: m.Http, step: Mapping[str, str]) -> None:
        await session.post_json("/undo", dict(step))

    @m.hookimpl
    async def revoke_all(self, session: m.Http, request: m.RevokeRequest) -> str:
        await session.post_json("/revoke", {"before": request.before.isoformat()})
        return "the harbour takes no older token"

    @m.hookimpl
    def endpoint(self, config: Token) -> str:
        return config.url

    @m.hookimpl
    @asynccontextmanager
    async def client(self, request: m.ClientRequest) -> AsyncGenerator[m.Credentials, None]:
        yield await request.renew()

    @m.hookimpl
    @contextmanager
    def blocking_client(self, request: m.BlockingClientRequest) -> Generator[m.Credentials, None, None]:
        yield request.renew()

    @m.hookimpl
    @asynccontextmanager
    async def lifespan(self, tools: m.Tools) -> AsyncGenerator[None, None]:
        yield


connector: m.Connector[Token, m.Http] = Harbour()
qualify: m.Qualify = Harbour()
covers: m.Covers = Harbour()
units: m.Units[m.Http] = Harbour()
lift: m.Lift = Harbour()
lift_all: m.LiftAll = Harbour()
explain: m.Explain[Token] = Harbour()
render: m.Render = Harbour()
environment: m.Environ = Harbour()
serve: m.Serve = Harbour()
login: m.Login = Harbour()
logout: m.Logout = Harbour()
undo: m.Undo[m.Http] = Harbour()
revoke_all: m.RevokeAll[m.Http] = Harbour()
endpoint: m.Endpoint[Token] = Harbour()
client: m.Client = Harbour()
blocking_client: m.BlockingClient = Harbour()
lifespan: m.Lifespan = Harbour()


async def embed() -> str:
    """What an embedding host writes."""
    async with m.open_broker(plugins=[connector]) as broker:
        stored = await broker.register("quay", type="harbour", config={"url": "https://quay.example", "token": "t"})
        await broker.update("quay", labels={"team": None}, ttl=timedelta(minutes=20))
        issued = await broker.issue(stored.id, resource_id="north/7", access="write")
        return issued.connector
