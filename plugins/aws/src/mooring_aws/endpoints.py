"""Where each service is: the connector's fields first, then botocore's AWS_ENDPOINT_URL variables, else AWS itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from mooring_aws import ids
from mooring_aws.credentials import GENERAL
from mooring_aws.errors import plain
from mooring_aws.settings import AwsConfig

VARIABLE = "AWS_ENDPOINT_URL"
IGNORE = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"


def endpoint_of(config: AwsConfig, service: str) -> str | None:
    """The address of a service; None for AWS's own."""
    return lookup(endpoints_of(config), service)


def lookup(endpoints: Mapping[str, str], service: str) -> str | None:
    """The address of a service among endpoints by service."""
    return endpoints.get(service) or endpoints.get(GENERAL)


def endpoints_of(config: AwsConfig) -> dict[str, str]:
    """Every address that is not AWS's own, by service; what a caller needs in order to use the credentials."""
    general = {GENERAL: config.endpoint_url} if config.endpoint_url else {}
    return (general or _environment()) | general | config.endpoint_urls


def host_of(config: AwsConfig) -> str:
    """The host of the STS that a connector calls."""
    url = endpoint_of(config, "sts")
    if url is None:
        return f"sts.{config.home}.{ids.domain_of(config.home)}"
    return urlsplit(plain(url)).netloc or "an endpoint whose address is none"


def variables(endpoints: Mapping[str, str]) -> dict[str, str]:
    """The same as environment variables."""
    return {_variable(service): url for service, url in sorted(endpoints.items())}


def _variable(service: str) -> str:
    return VARIABLE if service == GENERAL else f"{VARIABLE}_{service.upper().replace('-', '_')}"


def _environment() -> dict[str, str]:
    if os.environ.get(IGNORE, "").lower() == "true":
        return {}
    found = {name.removeprefix(VARIABLE): url for name, url in os.environ.items() if name.startswith(VARIABLE) and url}
    return {name[1:].lower().replace("_", "-") if name else GENERAL: url for name, url in found.items()}
