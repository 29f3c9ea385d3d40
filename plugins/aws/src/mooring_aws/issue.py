"""Carrying out a plan: the keys, and what becomes of them for each resource type."""

from __future__ import annotations

from datetime import timedelta

import mooring as m
from mooring_aws import ecr, eks, ids, settings, sts
from mooring_aws.credentials import AwsCredentials, Keys
from mooring_aws.endpoints import endpoints_of
from mooring_aws.methods import ASSUMED
from mooring_aws.plan import WIDE, Plan, asks_account, command, plan_of
from mooring_aws.session import AwsSession

SLACK = timedelta(minutes=1)
"""By how much a life may fall short of what was asked for without a word."""


async def issue(session: AwsSession, request: m.CredentialRequest) -> m.Credentials:
    """Credentials for a request, as `plan_of` decides."""
    plan = plan_of(session.config, request, session.context.connector)
    if asks_account(session.config, request):
        ids.same_account((await session.identity()).account, request.resource_id)
    if request.resource_type == ids.EKS:
        keys = await sts.make(session, plan, eks.SIGNING_LIFE, request.consumer)
        return await eks.access(session, request, keys)
    keys, narrowed, notes = await _make(session, plan, request)
    if request.resource_type == ids.ECR:
        return await ecr.login(session, request, keys, narrowed=narrowed, notes=notes)
    _check_end(session, keys, request)
    return AwsCredentials(
        access_key_id=keys.access_key_id,
        secret_access_key=keys.secret_access_key,
        session_token=keys.session_token,
        region=session.config.home,
        account=request.resource_id if request.resource_type == ids.GENERIC else None,
        endpoint_urls=endpoints_of(session.config),
        expires_at=keys.expires_at,
        narrowed=narrowed,
        clamped=(*notes, *_shorter(session, request, keys)),
    )


async def _make(session: AwsSession, plan: Plan, request: m.CredentialRequest) -> tuple[Keys, bool, tuple[str, ...]]:
    """The keys, whether they are narrowed, and what to say of them."""
    life = request.ttl or ASSUMED.default
    notes = () if plan.narrowed else plan.notes
    if not isinstance(session.config, settings.SecretKeyConfig):
        return await sts.make(session, plan, life, request.consumer), plan.narrowed, notes
    try:
        return await sts.make(session, plan, life, request.consumer), plan.narrowed, notes
    except (m.AccessDenied, m.Rejected, m.ResourceNotFound) as error:
        refusal = error.message
    return await _instead(session, plan, request, refusal)


async def _instead(
    session: AwsSession, plan: Plan, request: m.CredentialRequest, refusal: str
) -> tuple[Keys, bool, tuple[str, ...]]:
    """For a key of which the endpoint makes no narrowed temporary ones: wider ones, then the key itself, if allowed."""
    if plan.narrowed:
        if not request.allow_unnarrowed:
            raise m.NotNarrowed(
                f"{refusal}; so the key cannot be narrowed: get that call allowed, or let wider credentials out: "
                + command(session.context.connector, "--allow-unnarrowed")
            )
        try:
            made = await sts.make(session, Plan(how="session-token"), request.ttl or ASSUMED.default, request.consumer)
        except (m.AccessDenied, m.Rejected, m.ResourceNotFound) as error:
            refusal = error.message
        else:
            return made, False, (WIDE,)
    if not request.allow_long_lived:
        raise m.LongLived(
            f"{refusal}; so there is only the long-lived key: get that call allowed, or let the key out: "
            + command(session.context.connector, "--allow-long-lived")
        )
    said = "the long-lived key itself is handed out, for the endpoint makes no temporary ones; it has no end"
    return await session.source(), False, (said,)


def _check_end(session: AwsSession, keys: Keys, request: m.CredentialRequest) -> None:
    if keys.expires_at is not None or request.allow_long_lived:
        return
    allow = command(session.context.connector, "--allow-long-lived")
    if keys.temporary:
        raise m.LongLived(f"{_unknown_end(session)}; or let it out without: {allow}")
    raise m.LongLived(f"the machine's own key is long-lived; add a role_arn, or let the key out: {allow}")


def _unknown_end(session: AwsSession) -> str:
    say = command(session.context.connector, "--expires-at INSTANT")
    return f"nobody knows when the session token ends; say when: {say}"


def _shorter(session: AwsSession, request: m.CredentialRequest, keys: Keys) -> tuple[str, ...]:
    if keys.expires_at is None:
        return (_unknown_end(session),) if keys.temporary else ()
    life = keys.expires_at - session.context.clock.now()
    if request.ttl is None or life >= request.ttl - SLACK:
        return ()
    return (f"asked for {request.ttl}; AWS gave {timedelta(seconds=round(life.total_seconds()))}",)
