"""Carrying out a plan: the keys, and what becomes of them for each resource type."""

from __future__ import annotations

from datetime import timedelta

import mooring as m
from mooring_aws import ecr, eks, ids, settings, sts
from mooring_aws.credentials import AwsCredentials, Keys
from mooring_aws.endpoints import endpoints_of
from mooring_aws.methods import ASSUMED
from mooring_aws.plan import WIDE, Plan, plan_of
from mooring_aws.session import AwsSession

SLACK = timedelta(minutes=1)
"""By how much a life may fall short of what was asked for without a word."""


async def issue(session: AwsSession, request: m.CredentialRequest) -> m.Credentials:
    """Credentials for a request, as `plan_of` decides."""
    plan = plan_of(session.config, request)
    if request.resource_type == ids.EKS:
        keys = await sts.make(session, plan, eks.SIGNING_LIFE, request.consumer)
        return await eks.access(session, request, keys)
    keys, narrowed, notes = await _make(session, plan, request)
    if request.resource_type == ids.ECR:
        return await ecr.login(session, request, keys, narrowed=narrowed, notes=notes)
    _check_end(keys, request)
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
                f"{refusal}; so the key cannot be narrowed: allow that call, or on the connector unnarrowed credentials"
            )
        try:
            made = await sts.make(session, Plan(how="session-token"), request.ttl or ASSUMED.default, request.consumer)
        except (m.AccessDenied, m.Rejected, m.ResourceNotFound) as error:
            refusal = error.message
        else:
            return made, False, (WIDE,)
    if not request.allow_long_lived:
        raise m.LongLived(
            f"{refusal}; so there is only the long-lived key: allow that call, or on the connector long-lived ones"
        )
    said = "the long-lived key itself is handed out, for the endpoint makes no temporary ones; it has no end"
    return await session.source(), False, (said,)


def _check_end(keys: Keys, request: m.CredentialRequest) -> None:
    if keys.expires_at is not None or request.allow_long_lived:
        return
    if keys.temporary:
        raise m.LongLived(
            "nobody knows when the session token ends; set the connector's expiry to it, or allow long-lived ones"
        )
    raise m.LongLived("the machine's own key is long-lived; add a role_arn, or allow long-lived credentials")


def _shorter(session: AwsSession, request: m.CredentialRequest, keys: Keys) -> tuple[str, ...]:
    if keys.expires_at is None:
        return ("nobody knows when the session token ends; set the connector's expiry to it",) if keys.temporary else ()
    life = keys.expires_at - session.context.clock.now()
    if request.ttl is None or life >= request.ttl - SLACK:
        return ()
    return (f"asked for {request.ttl}; AWS gave {timedelta(seconds=round(life.total_seconds()))}",)
