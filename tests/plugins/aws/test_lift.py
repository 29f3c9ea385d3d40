"""Configurations made of what a machine has: environment, files, profiles, metadata of a container."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import mooring as m
from mooring_aws import connector

pytestmark = pytest.mark.anyio

KEY, SECRET = "AKIAEXAMPLEEXAMPLE00", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TEMPORARY = "ASIAEXAMPLEEXAMPLE00"
ROLE = "arn:aws:iam::123456789012:role/deploy"


@pytest.fixture
def files(machine: Path) -> Any:
    """Writes the shared files of the machine."""
    (machine / ".aws").mkdir()

    def write(config: str = "", credentials: str = "") -> None:
        (machine / ".aws" / "config").write_text(config)
        (machine / ".aws" / "credentials").write_text(credentials)

    return write


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


async def lifted(method: str | None = None, *, allow_implicit: bool = False, **options: Any) -> m.Lifted:
    return await connector.lift(m.LiftRequest(auth_method=method, options=options, allow_implicit=allow_implicit))


def plain(config: Any) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in config.__struct_fields__}
    shown = {name: value.reveal() if isinstance(value, m.Secret) else value for name, value in values.items()}
    return {name: value for name, value in shown.items() if value}


async def test_nothing(machine: Path) -> None:
    with pytest.raises(m.NothingToLift, match=r"environment.*profile.*SSO.*AWS_EC2_METADATA_DISABLED"):
        await lifted(region="eu-west-1")


async def test_long_lived_keys_of_the_environment(variables: Any) -> None:
    variables(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="eu-west-1")
    found = await lifted()
    assert (found.auth_method, found.expires_at) == ("secret-key", None)
    assert "environment" in found.source
    assert plain(found.config) == {"region": "eu-west-1", "aws_access_key_id": KEY, "aws_secret_access_key": SECRET}


async def test_the_region_as_other_sdks_read_it(variables: Any) -> None:
    variables(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_REGION="eu-west-1")
    assert plain((await lifted()).config)["region"] == "eu-west-1"


async def test_temporary_keys_of_the_environment_have_no_guessed_end(variables: Any) -> None:
    variables(
        AWS_ACCESS_KEY_ID=TEMPORARY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_SESSION_TOKEN="token", AWS_REGION="eu-west-1"
    )
    found = await lifted(region="us-east-1")
    assert (found.auth_method, found.expires_at) == ("sts-token", None)
    assert plain(found.config)["aws_session_token"] == "token"
    assert plain(found.config)["region"] == "us-east-1"


async def test_the_end_of_temporary_keys_where_the_environment_says_it(variables: Any) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)
    variables(
        AWS_ACCESS_KEY_ID=TEMPORARY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_SESSION_TOKEN="token",
        AWS_DEFAULT_REGION="eu-west-1", AWS_CREDENTIAL_EXPIRATION=ends.isoformat(),
    )  # fmt: skip
    assert (await lifted()).expires_at == ends


async def test_a_named_profile_with_its_region_and_endpoints(files: Any, variables: Any) -> None:
    files(
        "[default]\nregion=us-east-1\n[profile dev]\nregion=eu-west-1\nendpoint_url=http://127.0.0.1:1\nservices=mine\n"
        "[services mine]\ns3=\n  endpoint_url=http://127.0.0.1:2\n",
        f"[default]\naws_access_key_id=AKIAOTHER0000000\naws_secret_access_key=other\n"
        f"[dev]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n",
    )
    variables(AWS_ACCESS_KEY_ID="AKIAENVIRONMENT0", AWS_SECRET_ACCESS_KEY="environment")
    found = await lifted(profile_name="dev")
    assert found.auth_method == "secret-key"
    assert "'dev'" in found.source
    assert plain(found.config) == {
        "region": "eu-west-1",
        "endpoint_url": "http://127.0.0.1:1",
        "endpoint_urls": {"s3": "http://127.0.0.1:2"},
        "aws_access_key_id": KEY,
        "aws_secret_access_key": SECRET,
    }


async def test_endpoints_of_the_environment(variables: Any) -> None:
    variables(
        AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="eu-west-1",
        AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_ENDPOINT_URL_STS="http://127.0.0.1:2",
    )  # fmt: skip
    config: Any = (await lifted()).config
    assert (config.endpoint_url, config.endpoint_urls) == ("http://127.0.0.1:1", {"sts": "http://127.0.0.1:2"})


async def test_a_profile_with_a_role_becomes_the_role_and_its_source_keys(files: Any) -> None:
    files(
        f"[profile deploy]\nregion=eu-west-1\nrole_arn={ROLE}\nsource_profile=base\nexternal_id=ext-1\n",
        f"[base]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n",
    )
    found = await lifted(profile_name="deploy")
    assert found.auth_method == "iam-role"
    assert "'deploy'" in found.source
    assert "'base'" in found.source
    assert plain(found.config) == {
        "region": "eu-west-1",
        "aws_access_key_id": KEY,
        "aws_secret_access_key": SECRET,
        "role_arn": ROLE,
        "external_id": "ext-1",
    }


async def test_a_role_by_option_with_the_keys_that_are_there(variables: Any) -> None:
    variables(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="eu-west-1")
    found = await lifted(role_arn=ROLE, external_id="ext-1")
    assert found.auth_method == "iam-role"
    assert (plain(found.config)["role_arn"], plain(found.config)["external_id"]) == (ROLE, "ext-1")


async def test_a_web_identity(variables: Any, files: Any) -> None:
    variables(AWS_ROLE_ARN=ROLE, AWS_WEB_IDENTITY_TOKEN_FILE="/run/token", AWS_DEFAULT_REGION="eu-west-1")
    found = await lifted()
    assert found.auth_method == "web-identity"
    assert plain(found.config) == {"region": "eu-west-1", "role_arn": ROLE, "web_identity_token_file": "/run/token"}
    files(f"[profile pod]\nregion=eu-west-1\nrole_arn={ROLE}2\nweb_identity_token_file=/run/other\n")
    found = await lifted(profile_name="pod")
    assert plain(found.config)["web_identity_token_file"] == "/run/other"
    assert "'pod'" in found.source


@pytest.mark.parametrize("method", ["secret-key", "session-token", "federation-token"])
async def test_a_wanted_method_of_long_lived_keys(variables: Any, method: str) -> None:
    variables(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="eu-west-1")
    assert (await lifted(method)).auth_method == method
    variables(AWS_ACCESS_KEY_ID=TEMPORARY, AWS_SESSION_TOKEN="token")
    with pytest.raises(m.NothingToLift, match="sts-token"):
        await lifted(method)


async def test_a_wanted_method_that_the_machine_has_nothing_for(variables: Any) -> None:
    variables(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="eu-west-1")
    for method, hint in (
        ("sts-token", "secret-key"),
        ("iam-role", "role_arn"),
        ("web-identity", "web_identity_token_file"),
    ):
        with pytest.raises(m.NothingToLift, match=hint):
            await lifted(method)
    with pytest.raises(m.UnknownAuthMethod, match="iam-role"):
        await lifted("iam-rool")


async def test_the_implicit_method_only_where_it_is_allowed() -> None:
    with pytest.raises(m.NotPermitted):
        await lifted("implicit", region="eu-west-1")
    found = await lifted("implicit", allow_implicit=True, region="eu-west-1", role_arn=ROLE)
    assert plain(found.config) == {"region": "eu-west-1", "role_arn": ROLE}


async def test_a_profile_or_region_that_is_not_there(files: Any, variables: Any) -> None:
    files("[default]\nregion=eu-west-1\n")
    with pytest.raises(m.NothingToLift, match="profile"):
        await lifted(profile_name="nowhere")
    files("")
    variables(AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET)
    with pytest.raises(m.InvalidConfig, match="region"):
        await lifted()
    assert plain((await lifted(regions=["eu-west-1", "us-east-1"])).config)["regions"] == ("eu-west-1", "us-east-1")


async def test_a_named_profile_without_keys(files: Any, container: Any) -> None:
    """Neither the environment nor the container's role is what was asked for."""
    files("[profile dev]\nregion=eu-west-1\n")
    with pytest.raises(m.NothingToLift, match=r"^profile 'dev' has no AWS credentials; [^,]*, or name another$"):
        await lifted(profile_name="dev")


async def test_a_file_that_cannot_be_read(files: Any) -> None:
    files("canary")
    with pytest.raises(m.NothingToLift) as caught:
        await lifted(region="eu-west-1")
    assert "canary" not in str(caught.value)


async def test_a_program_that_answers_with_credentials(files: Any, machine: Path) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)
    answer = {
        "Version": 1,
        "AccessKeyId": TEMPORARY,
        "SecretAccessKey": SECRET,
        "SessionToken": "t",
        "Expiration": ends.isoformat(),
    }
    (machine / "answer.json").write_text(json.dumps(answer))
    files(f"[profile tool]\nregion=eu-west-1\ncredential_process=cat {machine}/answer.json\n")
    found = await lifted(profile_name="tool")
    assert (found.auth_method, found.expires_at) == ("sts-token", ends)
    assert "credential_process" in found.source


@pytest.fixture
async def container(fake: Any, variables: Any) -> Any:
    """A container's credentials endpoint."""
    ends = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)

    async def answer(asked: Any) -> Any:
        return web.json_response(
            {"AccessKeyId": TEMPORARY, "SecretAccessKey": SECRET, "Token": "t", "Expiration": ends.isoformat()}
        )

    fake.answer = answer
    fake.ends = ends
    variables(AWS_CONTAINER_CREDENTIALS_FULL_URI=fake.url + "/creds", AWS_DEFAULT_REGION="eu-west-1")
    return fake


async def test_a_containers_role(container: Any) -> None:
    found = await lifted()
    assert (found.auth_method, found.expires_at) == ("sts-token", container.ends)
    assert "container" in found.source


async def test_an_implicit_connector_takes_the_machines_identity(container: Any, opened: Any, ask: Any) -> None:
    async with opened("implicit", region="eu-west-1") as session:
        with pytest.raises(m.NotNarrowed):
            await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
        issued = await connector.issue_credentials(session, ask("s3-bucket", "s3://data", allow_unnarrowed=True))
    assert (issued.expires_at, issued.narrowed) == (container.ends, False)


async def test_an_implicit_connector_on_a_machine_without_an_identity(opened: Any) -> None:
    async with opened("implicit", region="eu-west-1") as session:
        with pytest.raises(m.NothingToLift):
            await session.identity()


async def test_only_the_profile_that_was_asked_for_is_read(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files(
        f"[profile dev]\nregion=eu-west-1\n[profile other]\ncredential_process=touch {Path.home()}/was-run\n",
        f"[dev]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n",
    )
    await lifted(profile_name="dev")
    assert not (Path.home() / "was-run").exists()


@pytest.mark.parametrize("method", ["sts-token", "secret-key"])
async def test_nobody_is_asked_for_an_mfa_code(files: Any, capsys: pytest.CaptureFixture[str], method: str) -> None:
    files(
        config=f"[profile dev]\nregion = eu-west-1\nrole_arn = {ROLE}\nsource_profile = base\n"
        "mfa_serial = GAHT12345678\n",
        credentials=f"[base]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n",
    )
    with pytest.raises(m.NothingToLift, match="the profile wants an MFA code"):
        await lifted(method, profile_name="dev")
    assert "MFA" not in "".join(capsys.readouterr())
