"""The AWS plugin's parsers: what is drawn for each, and what must hold."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import anyio
import msgspec
from held import outcome, silent, taken
from hypothesis import strategies as st
from kernel_checks import again
from near import CANARY, mangled, near, near_bytes

import mooring as m
from mooring.credentials import SHARED, restore, reveal
from mooring.testing import example_context
from mooring.types import Secret, build_config
from mooring_aws import connector, ids, policy, s3
from mooring_aws import sts as sts_module
from mooring_aws.endpoints import endpoints_of, variables
from mooring_aws.errors import plain as plain_url
from mooring_aws.errors import translate, translated
from mooring_aws.plan import plan_of
from mooring_aws.session import AwsSession
from mooring_aws.sts import session_name

ACCOUNT, OTHER = "123456789012", "210987654321"
KINDS = (ids.GENERIC, ids.S3, ids.EKS, ids.ECR)

# Ids

FORMS = {
    ids.GENERIC: [ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"],
    ids.S3: ["s3://data", "s3://data/raw/", "arn:aws:s3:::data/raw", "my.data-1"],
    ids.EKS: ["eu-west-1/prod", f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/prod", "prod"],
    ids.ECR: [
        f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1",
        f"https://{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn",
        f"arn:aws:ecr:eu-west-1:{ACCOUNT}:repository/team/app",
    ],
}
PIECES = [
    ":",
    "/",
    ".",
    "-",
    "arn:",
    "aws-cn",
    "aws-us-gov",
    "s3://",
    "cluster/",
    "root",
    "eu-west-1",
    ACCOUNT,
    "..",
    ".cn",
]
IDS = st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), near(FORMS[kind], PIECES)))


@outcome
def check_id(given: tuple[str, str]) -> None:
    kind, text = given
    found = taken(lambda: ids.canonical(kind, text), m.InvalidConfig)
    assert ids.canonical(kind, found) == found
    assert not set("*?") & set(found)
    assert "${" not in found
    assert found.isprintable()
    completed = taken(lambda: ids.qualify(kind, found, HERE), m.InvalidConfig, m.UnsupportedResource, secret=False)
    assert ids.canonical(kind, completed) == completed == ids.qualify(kind, completed, HERE)
    assert not ids.covers(kind, completed, completed) or kind == ids.S3
    put_together(kind, completed)


def put_together(kind: str, found: str) -> None:
    """The parts of an id make the id again."""
    if kind == ids.S3:
        bucket, prefix = ids.bucket_of(found)
        assert found == f"s3://{bucket}" + (f"/{prefix}" if prefix else "")
        assert "/" not in bucket
        assert prefix == "" or prefix.endswith("/")
    elif kind == ids.EKS:
        region, name = ids.cluster_of(found)
        assert found == f"{region}/{name}"
        assert "/" not in name
    elif kind == ids.ECR:
        host, account, region, repository = ids.repository_of(found)
        assert host == ids.registry_host(account, region)
        assert found == host + (f"/{repository}" if repository else "")
    else:
        assert len(found) == 12


HERE = {"region": "eu-west-1", "role_arn": f"arn:aws:iam::{ACCOUNT}:role/deploy"}
REGIONS = ("eu-west-1", "us-east-1", "cn-north-1", "us-gov-west-1")


class Place(NamedTuple):
    """Where a resource really is, and what it is called."""

    partition: str
    account: str
    region: str
    name: str


PLACES = st.builds(
    lambda region, account, name: Place(ids.partition_of(region), account, region, name),
    st.sampled_from(REGIONS),
    st.sampled_from([ACCOUNT, OTHER]),
    st.sampled_from(["data", "prod"]),
)


def forms_of(kind: str, place: Place) -> list[str]:
    """Every way to write it, from the least to the most that can be said."""
    partition, account, region, name = place
    host = ids.registry_host(account, region)
    return {
        ids.GENERIC: [account, f"arn:{partition}:iam::{account}:root"],
        ids.S3: [name, f"s3://{name}", f"arn:{partition}:s3:::{name}"],
        ids.EKS: [name, f"{region}/{name}", f"arn:{partition}:eks:{region}:{account}:cluster/{name}"],
        ids.ECR: [host, f"{host}/{name}", f"arn:{partition}:ecr:{region}:{account}:repository/{name}"],
    }[kind]  # fmt: skip


ALIASES = st.tuples(st.sampled_from(KINDS), PLACES, st.integers(0, 3), PLACES, st.booleans(), st.booleans())


@outcome
def check_aliases(given: tuple[str, Place, int, Place, bool, bool]) -> None:
    """What a text says of a resource's place is the connector's place, or the text is refused."""
    kind, wanted, number, own, with_role, as_list = given
    settings: dict[str, Any] = {"regions": [own.region]} if as_list else {"region": own.region}
    if with_role:
        settings["role_arn"] = f"arn:{own.partition}:iam::{own.account}:role/deploy"
    forms = forms_of(kind, wanted)
    text = forms[number % len(forms)]
    found = taken(
        lambda: ids.qualify(kind, ids.canonical(kind, text), settings), m.InvalidConfig, m.UnsupportedResource
    )
    if text.startswith("arn:") and kind != ids.ECR:
        assert wanted.partition == own.partition
    if kind == ids.EKS:
        region, name = ids.cluster_of(found)
        assert name == wanted.name
        assert region == (own.region if text == name else wanted.region)
        assert not text.startswith("arn:") or (with_role and wanted.account == own.account)
    elif kind == ids.ECR:
        assert ids.repository_of(found)[1:3] == (wanted.account, wanted.region)
    else:
        assert found == {ids.S3: f"s3://{wanted.name}", ids.GENERIC: wanted.account}[kind]


COVERS = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), near(FORMS[kind], PIECES), near(FORMS[kind], PIECES), st.booleans())
)


@outcome
def check_covers(given: tuple[str, str, str, bool]) -> str:
    kind, one, other, below = given
    scope, found = (
        taken(lambda text=text: ids.qualify(kind, ids.canonical(kind, text), HERE), m.ConfigError, secret=False)  # type: ignore[misc]
        for text in (one, f"{one.rstrip('/')}/{other}" if below else other)
    )
    covered = ids.covers(kind, scope, found)
    if covered:
        assert kind in (ids.S3, ids.ECR)
        assert found.startswith(scope)
        assert not ids.covers(kind, found, scope) or found == scope
    if covered and kind == ids.S3:
        assert ids.bucket_of(scope)[0] == ids.bucket_of(found)[0]
        assert ids.bucket_of(found)[1].startswith(ids.bucket_of(scope)[1])
    return str(covered)


# Settings

FIELDS: dict[str, Any] = {
    "region": "eu-west-1", "regions": ["eu-west-1", "us-east-1"], "endpoint_url": "https://s3.example.org:9000/x",
    "endpoint_urls": {"s3": "http://127.0.0.1:8333"}, "aws_access_key_id": "AKIAEXAMPLEEXAMPLE00",
    "aws_secret_access_key": CANARY, "aws_session_token": CANARY, "role_arn": HERE["role_arn"], "external_id": "x-1",
    "mfa_serial": "GAHT12345678", "mfa_code": "123456", "session_tags": {"team": "ml"}, "source_identity": "ann",
    "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"], "profile_name": "dev", "web_identity_token": CANARY,
    "policy": '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}',
    "web_identity_token_file": "/var/token",
}  # fmt: skip
METHODS = {method.name: method.config for method in connector.describe().auth_methods}
MINIMAL = {
    "implicit": {"region"},
    "secret-key": {"region", "aws_access_key_id", "aws_secret_access_key"},
    "sts-token": {"region", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"},
    "iam-role": {"region", "aws_access_key_id", "aws_secret_access_key", "role_arn"},
    "session-token": {"region", "aws_access_key_id", "aws_secret_access_key"},
    "federation-token": {"region", "aws_access_key_id", "aws_secret_access_key"},
    "web-identity": {"region", "role_arn", "web_identity_token_file"},
}
TEXTS = near(
    ["AKIAEXAMPLEEXAMPLE00", "ASIAEXAMPLEEXAMPLE00", "auto", "cn-north-1", "arn:aws-cn:iam::123456789012:role/x"]
)


@st.composite
def settings_of(draw: Any, texts: st.SearchStrategy[str] = TEXTS) -> tuple[str, Any]:
    method = draw(st.sampled_from(sorted(METHODS)))
    known = set(METHODS[method].__struct_fields__)
    names = MINIMAL[method] | (known & draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=4)))
    fields = {name: FIELDS[name] for name in sorted(names)}
    if "aws_session_token" in fields:
        fields["aws_access_key_id"] = "ASIAEXAMPLEEXAMPLE00"
    return method, draw(st.just(fields) | mangled(fields, texts))


@outcome
def check_settings(given: tuple[str, Any]) -> str:
    method, fields = given
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        return "no mapping"
    named = CANARY in "".join(fields)  # a field's name is none of its values, and is said
    config = taken(lambda: build_config(METHODS[method], fields), m.InvalidConfig, secret=not named)
    assert again(config) == config
    region = ids.REGION if not config.elsewhere else ""
    assert not region or config.partition in ("aws", "aws-cn", "aws-us-gov")
    for kind, id in ((ids.S3, "s3://data/raw/"), (ids.EKS, "eu-west-1/prod"), (ids.GENERIC, ACCOUNT)):
        request = m.CredentialRequest(
            resource_type=kind, resource_id=id, access="read", ttl=None, consumer="me", allow_unnarrowed=True
        )
        with_plan(lambda request=request: plan_of(config, request).explanation())  # type: ignore[misc]
    return f"taken {method}"


def with_plan(explain: Callable[[], m.Explanation]) -> None:
    try:
        explanation = explain()
    except m.ConfigError as error:
        silent(error)
        return
    if explanation.policy is not None:
        text = policy.compact(explanation.policy)
        assert json.loads(text, parse_constant=float) == explanation.policy
        assert "NaN" not in text.replace('"NaN"', "")


POLICIES = near(
    [
        FIELDS["policy"],
        '{"Statement": {"Effect": "Deny", "NotAction": ["s3:*"], "Resource": "*"}}',
        '{"Statement": []}',
    ],
    ['"Statement":', "NaN", "Infinity", '{"a":' * 1500, "[" * 990, "1e999", '"Condition": {}'],
)


@outcome
def check_policy(text: str) -> None:
    """A user's own policy: what is taken can be joined with a resource's and sent."""
    fields = {name: FIELDS[name] for name in MINIMAL["iam-role"]} | {"policy": text}
    taken(lambda: build_config(METHODS["iam-role"], fields), m.InvalidConfig)
    joined = policy.session_policy(s3.grants("aws", "s3://data", "read"), text, ())
    assert joined is not None
    own = json.loads(text)["Statement"]
    assert joined["Statement"][: len(own) if isinstance(own, list) else 1] == (own if isinstance(own, list) else [own])
    sent = taken(lambda: policy.compact(joined), m.InvalidConfig)
    assert len(sent) <= policy.MAX_CHARACTERS

    def no(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON (RFC 8259)")

    assert json.loads(sent, parse_constant=no) == joined


@outcome
def check_session_name(given: tuple[str, str]) -> None:
    for longest in (sts_module.ROLE_NAME, sts_module.FEDERATION_NAME):
        found = session_name(*given, longest)
        assert 1 <= len(found) <= longest
        assert not sts_module._FOREIGN.search(found)


ENVIRONMENTS = st.dictionaries(
    near(["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"], ["_", "STS"]).filter(
        lambda name: name and not {"=", "\x00"} & set(name) and name.isascii()
    ),
    near(["http://127.0.0.1:1", "true", ""]).filter(lambda text: "\x00" not in text and text.isascii()),
    max_size=3,
)


@outcome
def check_endpoints(environment: dict[str, str]) -> str:
    config = build_config(METHODS["implicit"], {"region": "eu-west-1"})
    assert isinstance(config, m.Config)
    with mock.patch.dict(os.environ, environment, clear=True):
        found = endpoints_of(config)  # type: ignore[arg-type]
    with mock.patch.dict(os.environ, variables(found), clear=True):
        assert endpoints_of(config) == found  # type: ignore[arg-type]
    return str(len(found))


# What AWS answers

ERROR = {
    "Error": {
        "Code": "AccessDenied",
        "Message": f"User: arn:aws:iam::{ACCOUNT}:user/ann is not authorized to perform: s3:GetObject on resource: d",
    },
    "ResponseMetadata": {"HTTPStatusCode": 403, "HTTPHeaders": {"retry-after": "17"}},
}
FAILURES = st.tuples(
    mangled(ERROR, near(["ExpiredToken", "SlowDown", "503", "301"])),
    st.sampled_from(["s3:ListBuckets", "sts:AssumeRole"]),
    near(["http://127.0.0.1:8333", f"http://ann:{CANARY}@host/?x", ""], ["@", ":", "/", "[", "]"]) | st.none(),
)


class Failed(Exception):
    """As botocore's ClientError has it."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response


@outcome
def check_failure(given: tuple[Any, str, str | None]) -> str:
    response, call, endpoint = given
    found = translate(Failed(response), call, endpoint, [Secret(CANARY)])
    assert isinstance(found, m.MooringError)
    assert "\n" not in found.message
    assert not found.retry_after or timedelta(0) < found.retry_after <= timedelta(days=1)
    assert CANARY not in repr(response) or CANARY not in found.message
    if endpoint:
        shown = plain_url(endpoint)
        assert plain_url(shown) == shown
        assert "@" not in shown
    return type(found).__name__


JWT = b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjQW5BclktOGQxZiJ9.c2lnbmF0dXJl"
TOKENS = near_bytes([JWT, JWT + b"\n", b"[default]\naws_secret_access_key = " + CANARY.encode()], [".", "=", "\n"])


@outcome
def check_token_file(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "token"
        path.write_bytes(content)
        fields = {name: FIELDS[name] for name in ("region", "role_arn")} | {"web_identity_token_file": str(path)}
        config = build_config(METHODS["web-identity"], fields)
        found = taken(lambda: anyio.run(sts_module._web_token, config), m.InvalidConfig)
    token = found.reveal()
    assert token.isascii()
    assert token.encode() == content.strip()
    assert token.count(".") >= 2


JSON_ANSWERS: dict[str, Any] = {
    "ecr:DescribeRegistry": {"registryId": ACCOUNT},
    "ecr:DescribeRepositories": {"repositories": [{"repositoryName": "team/app"}, {"repositoryName": "b"}]},
    "ecr:GetAuthorizationToken": {
        "authorizationData": [
            {"authorizationToken": "QVdTOmNBbkFyWS04ZDFm", "expiresAt": 1.8e9, "proxyEndpoint": "https://x"}
        ]
    },
    "eks:ListClusters": {"clusters": ["prod", "test"]},
    "eks:DescribeCluster": {
        "cluster": {
            "name": "prod",
            "arn": "arn:x",
            "endpoint": "https://x",
            "certificateAuthority": {"data": "Y2VydA=="},
        }
    },
}
STS = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
XML_ANSWERS = {
    "s3:ListBuckets": "<ListAllMyBucketsResult><Buckets><Bucket><Name>data</Name><CreationDate>2026-01-02T03:04:05Z"
    "</CreationDate><BucketRegion>eu-west-1</BucketRegion></Bucket></Buckets></ListAllMyBucketsResult>",
    "sts:GetCallerIdentity": f"<GetCallerIdentityResponse {STS}><GetCallerIdentityResult><Arn>"
    f"arn:aws:iam::{ACCOUNT}:user/a</Arn><Account>{ACCOUNT}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
    "sts:AssumeRole": f"<AssumeRoleResponse {STS}><AssumeRoleResult><Credentials><AccessKeyId>ASIAEXAMPLEEXAMPLE00"
    f"</AccessKeyId><SecretAccessKey>{CANARY}</SecretAccessKey><SessionToken>{CANARY}</SessionToken>"
    "<Expiration>2030-01-02T03:04:05Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
    "s3:ListObjectsV2": "<ListBucketResult><Contents><Key>raw/a</Key></Contents></ListBucketResult>",
    "s3:HeadBucket": "",
}
REFUSAL = "<ErrorResponse><Error><Code>ExpiredToken</Code><Message>no</Message></Error></ErrorResponse>"


def body_of(call: str) -> st.SearchStrategy[bytes]:
    """A reply's body: as it should be but for something, or almost."""
    if call in JSON_ANSWERS:
        value = JSON_ANSWERS[call]
        texts = near(["prod", "team/app", "x*", "a/b", "QVdT"])
        written = mangled(value, texts).map(lambda one: json.dumps(one, default=str).encode())
        return written | near_bytes([json.dumps(value).encode()], ['"', "null", "{}", "[]", "5"])
    pieces = ["<", ">", "</", "<Name>", "</Name>", "*", "/", "&amp;", "<!DOCTYPE x [<!ENTITY a 'b'>]>", "<Bucket/>"]
    return near_bytes([XML_ANSWERS[call].encode(), REFUSAL.encode()], pieces)


CALLS = (*JSON_ANSWERS, *XML_ANSWERS)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "x-amz-bucket-region"]), near(["17", "eu-west-1"]), max_size=1
)
ANSWERS = st.sampled_from(CALLS).flatmap(
    lambda call: st.tuples(st.just(call), st.sampled_from([200, 200, 200, 301, 403, 503]), HEADERS, body_of(call))
)


@cache
def service(name: str) -> tuple[Any, Any]:
    """botocore's own model and parser of a service."""
    import botocore.session
    from botocore.parsers import create_parser

    model = botocore.session.Session().get_service_model(name)
    return model, create_parser(model.resolved_protocol)


def parsed(call: str, status: int, headers: dict[str, str], body: bytes) -> Any:
    """What botocore makes of a reply, or raises."""
    from botocore.awsrequest import HeadersDict
    from botocore.exceptions import ClientError

    name, _, operation = call.partition(":")
    model, parser = service(name)
    shape = model.operation_model(operation).output_shape
    reply = {
        "status_code": status,
        "headers": HeadersDict(headers),
        "body": body,
        "context": {"operation_name": operation},
    }
    found = parser.parse(reply, shape)
    if status >= 300:
        raise ClientError(found, operation)
    return found


GOOD = {call: json.dumps(value).encode() for call, value in JSON_ANSWERS.items()} | {
    call: text.encode() for call, text in XML_ANSWERS.items()
}


class Replayed(AwsSession):
    """A session to which one call gets a reply of ours, and the others a good one."""

    def __init__(self, method: str, reply: tuple[str, int, dict[str, str], bytes]) -> None:
        fields = {name: FIELDS[name] for name in MINIMAL[method]}
        super().__init__(build_config(METHODS[method], fields), example_context(), None)  # type: ignore[arg-type]
        self._reply = reply

    async def _call(
        self, service: str, operation: str, region: str, keys: Any, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        call = f"{service}:{operation}"
        again = any(name in parameters for name in ("nextToken", "ContinuationToken"))
        reply = self._reply if call == self._reply[0] and not again else (call, 200, {}, GOOD[call])

        async def work() -> Any:
            return parsed(*reply)

        return await translated(call, work, None, [Secret(CANARY)])


USES: dict[str, tuple[str, str | None]] = {
    "ecr:DescribeRegistry": (ids.ECR, None),
    "ecr:DescribeRepositories": (ids.ECR, None),
    "ecr:GetAuthorizationToken": (ids.ECR, f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/team/app"),
    "eks:ListClusters": (ids.EKS, None),
    "eks:DescribeCluster": (ids.EKS, "eu-west-1/prod"),
    "s3:ListBuckets": (ids.S3, None),
    "s3:ListObjectsV2": (ids.S3, "s3://data/raw/"),
    "s3:HeadBucket": (ids.S3, "s3://data"),
    "sts:GetCallerIdentity": (ids.GENERIC, None),
    "sts:AssumeRole": (ids.S3, "s3://data"),
}


@outcome
def check_answer(reply: tuple[str, int, dict[str, str], bytes]) -> str:
    """Whatever a call answers: the plugin's hooks give what the contract says, or one of our errors."""
    kind, id = USES[reply[0]]

    async def use() -> int:
        session = Replayed("iam-role", reply)
        identity = await connector.verify(session, m.VerifyRequest(resource_type=kind, resource_id=id))
        msgspec.convert(msgspec.to_builtins(identity), m.Identity)
        count = 0
        async for resource in connector.discover(session, m.DiscoverRequest(resource_type=kind, resource_id=id)):
            msgspec.convert(msgspec.to_builtins(resource), m.Resource)
            assert ids.canonical(kind, resource.id) == resource.id, "a discovered id is canonical"
            count += 1
        if id is not None or kind == ids.GENERIC:
            request = m.CredentialRequest(
                resource_type=kind, resource_id=id, access="read", ttl=timedelta(hours=1), consumer="me"
            )
            credentials = await connector.issue_credentials(session, request)
            kept = msgspec.json.decode(msgspec.json.encode(reveal(credentials)))
            assert restore(kept, (*SHARED, *connector.describe().credentials)) == credentials
        return count

    try:
        return f"{reply[0]} {anyio.run(use)}"
    except m.MooringError as error:
        silent(error)
        refusal = error
    assert not isinstance(refusal, m.PluginError)
    return f"{reply[0]} {type(refusal).__name__}"


# What the machine has

CONFIG = (
    "[default]\nregion = eu-west-1\n\n[profile dev]\nrole_arn = arn:aws:iam::123456789012:role/x\n"
    "source_profile = base\nexternal_id = e\nmfa_serial = GAHT12345678\n\n"
    "[profile base]\nregion = us-east-1\nservices = s\n\n[services s]\n"
    "s3 =\n  endpoint_url = http://127.0.0.1:1\n"
)
SHARED_FILE = (
    f"[default]\naws_access_key_id = AKIAEXAMPLEEXAMPLE00\naws_secret_access_key = {CANARY}\n\n[base]\n"
    f"aws_access_key_id = ASIAEXAMPLEEXAMPLE00\naws_secret_access_key = {CANARY}\naws_session_token = {CANARY}\n"
)
LINES = ["\n", "[", "]", "=", "[profile dev]", "[default]", "region = ", "source_profile = dev", "role_arn = x", "  "]
FILES = st.tuples(
    near_bytes([CONFIG.encode(), b""], LINES),
    near_bytes([SHARED_FILE.encode(), b""], LINES),
    st.sampled_from([None, "default", "dev", "base", "none"]),
    st.sampled_from([None, *sorted(METHODS)]),
)


@outcome
def check_lift(given: tuple[bytes, bytes, str | None, str | None]) -> str:
    """Nothing of the machine is asked, and no program is run: what names one is left out."""
    config, shared, profile, method = given
    if b"credential_process" in config + shared or b"sso" in config + shared:
        return "not tried"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "config").write_bytes(config)
        (home / "credentials").write_bytes(shared)
        nowhere = "http://127.0.0.1:1"
        environment = {
            "HOME": folder, "AWS_CONFIG_FILE": str(home / "config"), "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": str(home / "credentials"), "AWS_MAX_ATTEMPTS": "1", "HTTPS_PROXY": nowhere,
            "HTTP_PROXY": nowhere,
        }  # fmt: skip
        options = {"profile_name": profile} if profile else {}
        with mock.patch.dict(os.environ, environment, clear=True):
            request = m.LiftRequest(auth_method=method, options=options, allow_implicit=True)
            found = taken(lambda: anyio.run(connector.lift, request), m.ConfigError, m.VendorError)
    assert type(found.config) is METHODS[found.auth_method]
    assert CANARY not in found.source
    return f"taken {found.auth_method}"
