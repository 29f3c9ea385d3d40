"""The table of errors: what AWS and botocore say, and what we say instead. `{call}` is the operation that failed,
`{who}` AWS or "the endpoint", `{endpoint}` the latter with its URL if it is not AWS's own, `{place}` what to check.

Source: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html and each operation's page.
"""

from __future__ import annotations

import mooring as m

Row = tuple[type[m.MooringError], str]

NO_REGION = "{who} does not know the region ({call}); check the fields region and regions"
SKEWED = "this machine's clock differs too much from that of {who} ({call}); set the clock"

ANSWERS: tuple[tuple[str, type[m.MooringError], str], ...] = (
    (
        "ExpiredToken ExpiredTokenException",
        m.AuthFailed,
        "the credentials have expired ({call}); update the connector with fresh ones",
    ),
    (
        "InvalidClientTokenId InvalidAccessKeyId UnrecognizedClientException",
        m.AuthFailed,
        "{who} does not know the access key, or no longer ({call}); check aws_access_key_id and the region",
    ),
    (
        "InvalidToken",
        m.AuthFailed,
        "{who} does not accept the session token ({call}); check aws_session_token, and the region's partition",
    ),
    (
        "SignatureDoesNotMatch InvalidSignatureException",
        m.AuthFailed,
        "the secret access key does not fit the access key ({call}); check aws_secret_access_key",
    ),
    (
        "MissingAuthenticationToken IncompleteSignature AuthFailure 401",
        m.AuthFailed,
        "{who} does not accept the credentials ({call}); check the access key for stray characters",
    ),
    (
        "RequestTimeTooSkewed RequestExpired",
        m.AuthFailed,
        SKEWED,
    ),
    (
        "InvalidIdentityToken IDPRejectedClaim",
        m.AuthFailed,
        "{who} does not accept the web identity token ({call}); check its issuer, audience and age",
    ),
    (
        "AccessDenied AccessDeniedException UnauthorizedOperation AuthorizationError Forbidden AllAccessDisabled 403",
        m.AccessDenied,
        "{who} denies {call}; allow it in the identity's policies",
    ),
    (
        "UnmodifiableEntity",
        m.AccessDenied,
        "IAM lets nobody change that role ({call}), as those of AWS's services and of single sign-on; do it there",
    ),
    (
        "OptInRequired",
        m.AccessDenied,
        "the account has not subscribed to the service ({call}); enable it for the account",
    ),
    (
        "RegionDisabledException",
        m.AccessDenied,
        "STS is not activated in that region for the account ({call}); activate it, or use another region",
    ),
    (
        (
            "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException "
            "RequestLimitExceeded BandwidthLimitExceeded TooManyRequestsException SlowDown PriorRequestNotComplete 429"
        ),
        m.Throttled,
        "{who} asks for fewer calls ({call}); try again later",
    ),
    (
        "NoSuchBucket",
        m.ResourceNotFound,
        "there is no such bucket ({call}); check its name",
    ),
    (
        "RepositoryNotFoundException",
        m.ResourceNotFound,
        "there is no such repository ({call}); check its name and region",
    ),
    (
        "ResourceNotFoundException ClusterNotFoundException NoSuchKey NoSuchEntity NotFound 404",
        m.ResourceNotFound,
        "{who} finds no such resource ({call}); check its name and region",
    ),
    (
        "PermanentRedirect 301",
        m.ResourceNotFound,
        "the bucket lies in another region ({call}); set the connector's region to the bucket's",
    ),
    (
        "AuthorizationHeaderMalformed",
        m.InvalidConfig,
        "the region does not fit the bucket or the store ({call}); check the field region",
    ),
    (
        "PackedPolicyTooLarge",
        m.InvalidConfig,
        "the session policy is too big once AWS has packed it ({call}); use fewer session tags or a shorter policy",
    ),
    (
        "MalformedPolicyDocument MalformedPolicyDocumentException",
        m.InvalidConfig,
        "the endpoint refuses the session policy as malformed ({call}); check the fields policy and policy_arns",
    ),
    (
        "RequestTimeout RequestTimeoutException",
        m.Unreachable,
        "no answer in time ({call}); check the network, or try again later",
    ),
    (
        "IDPCommunicationError",
        m.Unreachable,
        "{who} could not reach the issuer of the web identity token ({call}); try again later",
    ),
    (
        (
            "InternalError InternalFailure InternalServerError ServerException ServiceUnavailable "
            "ServiceUnavailableException 500 502 503 504"
        ),
        m.Unreachable,
        "{who} failed ({call}); try again later",
    ),
    (
        "NotImplemented InvalidAction UnsupportedOperation MethodNotAllowed",
        m.Rejected,
        "that endpoint has no {call}; use an auth method that does without it",
    ),
)
"""Codes in error answers (or HTTP statuses, where an answer has no code that is known)."""

REMARKS: tuple[tuple[str, str, type[m.MooringError], str], ...] = (
    ("SignatureDoesNotMatch", "Signature expired", m.AuthFailed, SKEWED),
    ("SignatureDoesNotMatch", "Signature not yet current", m.AuthFailed, SKEWED),
    ("InvalidSignatureException", "Signature expired", m.AuthFailed, SKEWED),
    ("InvalidSignatureException", "Signature not yet current", m.AuthFailed, SKEWED),
    ("SignatureDoesNotMatch", "scoped to a valid", m.InvalidConfig, NO_REGION),
    ("InvalidSignatureException", "scoped to a valid", m.InvalidConfig, NO_REGION),
    (
        "ValidationError",
        "MaxSessionDuration",
        m.InvalidConfig,
        "the role allows no session that long ({call}); ask for a shorter ttl, or raise its MaxSessionDuration",
    ),
    (
        "ValidationError",
        "role chaining",
        m.InvalidConfig,
        "a role assumed from another role's session lasts one hour at most ({call}); ask for a ttl of 1h or less",
    ),
    (
        "AccessDenied",
        "MultiFactorAuthentication",
        m.AuthFailed,
        "{who} does not accept the MFA code ({call}); a code is good once and for 30 seconds: update mfa_code",
    ),
    (
        "AccessDenied",
        "sts:TagSession",
        m.AccessDenied,
        "{who} denies tagging the session ({call}); allow sts:TagSession to the role's trusted, or drop session_tags",
    ),
)
"""Codes that mean several things, told apart by a fragment of the message. Looked at first."""

EXCEPTIONS: tuple[tuple[str, type[m.MooringError], str], ...] = (
    (
        "gaierror ClientConnectorDNSError",
        m.Unreachable,
        "the name of {endpoint} cannot be resolved ({call}); check the region, the endpoint and DNS",
    ),
    (
        "ClientConnectorCertificateError SSLCertVerificationError",
        m.Unreachable,
        "the certificate of {endpoint} is not trusted ({call}); check the endpoint, or set AWS_CA_BUNDLE",
    ),
    (
        "SSLError ClientSSLError",
        m.Unreachable,
        "there is no TLS with {endpoint} ({call}); check that it serves https at that port",
    ),
    (
        "ClientResponseError",
        m.Unreachable,
        "{endpoint} does not speak HTTP ({call}); check its port, and whether it is http or https",
    ),
    (
        "ConnectTimeoutError",
        m.Unreachable,
        "no connection to {endpoint} in time ({call}); check {place}",
    ),
    (
        "ReadTimeoutError",
        m.Unreachable,
        "no answer of {endpoint} in time ({call}); check the network, or try again later",
    ),
    (
        "EndpointConnectionError",
        m.Unreachable,
        "{endpoint} cannot be reached ({call}); check {place}",
    ),
    (
        "ConnectionClosedError ResponseStreamingError IncompleteReadError",
        m.Unreachable,
        "{endpoint} closed the connection ({call}); try again later",
    ),
    (
        "ProxyConnectionError ClientHttpProxyError",
        m.Unreachable,
        "the proxy cannot be reached ({call}); check HTTPS_PROXY",
    ),
    (
        "HTTPClientError",
        m.Unreachable,
        "the request failed on its way ({call}); check the endpoint and the network",
    ),
    (
        "ResponseParserError",
        m.Unreachable,
        "the answer of {endpoint} is not one of AWS's ({call}); check that it speaks this API",
    ),
    (
        "NoCredentialsError",
        m.NothingToLift,
        "this machine has no AWS credentials ({call}); sign in with the aws CLI, or name a profile",
    ),
    (
        "PartialCredentialsError",
        m.NothingToLift,
        "this machine has only a part of AWS credentials ({call}); set both the key id and the secret",
    ),
    (
        "ProfileNotFound",
        m.NothingToLift,
        "there is no such AWS profile ({call}); see ~/.aws/config and ~/.aws/credentials",
    ),
    (
        "ConfigParseError ConfigNotFound",
        m.NothingToLift,
        "the AWS configuration file cannot be read ({call}); check its syntax",
    ),
    (
        "InvalidConfigError InfiniteLoopConfigError UnknownCredentialError",
        m.NothingToLift,
        "the AWS profile does not hold together ({call}); check ~/.aws/config",
    ),
    (
        "UnauthorizedSSOTokenError SSOTokenLoadError TokenRetrievalError",
        m.NothingToLift,
        "there is no SSO session, or it has ended ({call}); sign in: aws sso login",
    ),
    (
        "RefreshWithMFAUnsupportedError",
        m.NothingToLift,
        "the profile wants an MFA code ({call}); use iam-role with mfa_serial and mfa_code",
    ),
    (
        "CredentialRetrievalError MetadataRetrievalError",
        m.NothingToLift,
        "a source of AWS credentials failed ({call}); try it with the aws CLI",
    ),
    (
        "ParamValidationError",
        m.InvalidConfig,
        "a field does not have the form that AWS wants ({call}); check the connector's fields",
    ),
    (
        "NoRegionError InvalidRegionError",
        m.InvalidConfig,
        "a region is needed, such as eu-west-1 ({call}); check the field region",
    ),
    (
        "EndpointProviderError UnknownServiceError ValueError",
        m.InvalidConfig,
        "no endpoint can be made of the settings ({call}); check region and endpoint_url",
    ),
)
"""Names of exceptions, of botocore, aiohttp and Python, or of classes that they derive from."""

CERTIFICATES = {
    9: "the certificate of {endpoint} is not valid yet ({call}); check this machine's clock",
    10: "the certificate of {endpoint} has expired ({call}); have it renewed, or check this machine's clock",
    62: "the certificate of {endpoint} is for another host ({call}); check the name in the endpoint's URL",
    64: "the certificate of {endpoint} is for another host ({call}); check the address in the endpoint's URL",
}
"""Codes of OpenSSL's verification that say more than that a certificate is not trusted (X509_STORE_CTX_get_error)."""

OTHER = "{who} refused {call} with {code}; see the operation's page in AWS's API reference"
DENIALS = {
    "sts:AssumeRole": "{who} denies {call}; allow it in the identity's policies and in the trust policy of the role",
    "sts:AssumeRoleWithWebIdentity": "{who} denies {call}; check the trust policy of the role",
}
"""What a denial means for these calls."""
HERE = "the call failed on this machine with {code} ({call}); run with --debug for more"
