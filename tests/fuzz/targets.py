"""Every parser of the project, in one table: what turns text or bytes from outside into a value.

A target's check raises where a property does not hold, and says in a word what became of the input. What all hold: only
errors of ours come out, and none says a secret. What each holds beyond that is in its check.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import aws_checks as aws
import components_checks as components
import docker_checks as docker
import kernel_checks as kernel
import kubernetes_checks as kubernetes
from hypothesis import strategies as st
from near import CANARY, near


class Target(NamedTuple):
    """One row."""

    parsers: tuple[str, ...]
    """The functions that it drives, as `module:function`."""
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], str]
    seeds: tuple[Any, ...] = ()
    """Inputs that are always tried; each was a defect."""
    large: Callable[[str], Any] | None = None
    """An input made of one long text, for what must not take longer than its length."""
    slow: bool = False
    """Whether one check takes milliseconds: it opens files, or a library of the vendor's works."""


TARGETS: dict[str, Target] = {
    # the kernel
    "instant": Target(
        parsers=("mooring.types:instant",),
        inputs=kernel.INSTANTS | st.floats() | st.integers() | st.datetimes(),
        check=kernel.check_instant,
        large=str,
    ),
    "limits": Target(
        parsers=("mooring.limits:parse_limits",),
        inputs=kernel.LIMITS,
        check=kernel.check_limits,
        large=lambda text: f"{text}.rate={text}",
    ),
    "patterns": Target(
        parsers=("mooring.globs:is_pattern", "mooring.globs:overlap", "mooring.globs:matches"),
        inputs=kernel.PATTERNS,
        check=kernel.check_patterns,
    ),
    "references": Target(
        parsers=("mooring.references:references", "mooring.references:resolve"),
        inputs=components.REFERENCES,
        check=components.check_references,
        large=str,
    ),
    "mooring-yaml": Target(
        parsers=("mooring_components.documents:read", "mooring_components.documents:_check_keys"),
        inputs=components.DOCUMENTS,
        check=components.check_document,
        slow=True,
    ),
    "secret": Target(
        parsers=("mooring.types:Secret.__init__",),
        inputs=near([CANARY]) | st.just(None) | st.binary(),
        check=kernel.check_secret,
        large=str,
    ),
    "config": Target(
        parsers=(
            "mooring.types:_build",
            "mooring.types:build_config",
            "mooring.types:_build",
            "mooring.types:_decode",
            "mooring.types:_malformed",
            "mooring.types:_plain",
        ),
        inputs=kernel.CONFIGS,
        check=kernel.check_config,
        seeds=(
            {"url": "x", "key": "k", "region": None, "present": None, "since": None, "inner": None},
            {"url": "x", "key": "k", "ratio": "inf"},
            {"url": "x", "key": "k", "port": f"{CANARY}\ud800"},
            {"url": "x", "key": "k", "inner": {"size": "nan"}},
        ),
        large=lambda text: {"url": text, "key": text, "port": text, "partition": text, "tags": {text: text}},
    ),
    "master-keys": Target(
        parsers=(
            "mooring.vault._keys:parse_keys",
            "mooring.vault._keys:_parsed",
            "mooring.vault._keys:MasterKey.raw",
            "mooring.vault._keys:_decoded",
        ),
        inputs=kernel.KEYS,
        check=kernel.check_keys,
        large=str,
    ),
    "master-key-file": Target(
        parsers=("mooring.vault:key_file",),
        inputs=st.binary() | kernel.KEYS.map(lambda text: text.encode("utf-8", "surrogatepass")),
        check=kernel.check_key_file,
        slow=True,
    ),
    "seal": Target(
        parsers=("mooring.vault:Vault.open", "mooring.vault._vault:decrypt"),
        inputs=kernel.seals(),
        check=kernel.check_seal,
    ),
    "backup": Target(
        parsers=("mooring.vault._backup:read_backup", "mooring.vault._backup:_chunks"),
        inputs=kernel.BACKUPS,
        check=kernel.check_backup,
        seeds=(b"", kernel.BACKUP, kernel.BACKUP[:-1], kernel.BACKUP + b"x"),
    ),
    "shelf-file": Target(
        parsers=("mooring.shelf:SealedShelf._read",),
        inputs=kernel.near_bytes([kernel.msgspec.msgpack.encode(kernel.sealed())], ["\x91" * 3000]),
        check=kernel.check_shelf_file,
        seeds=(b"\x81\xa1x" + b"\x91" * 5000 + b"\xc0",),
        slow=True,
    ),
    "shelf-content": Target(
        parsers=("mooring.shelf:SealedShelf._read",),
        inputs=kernel.ISSUED_TEXTS,
        check=kernel.check_shelf_content,
        seeds=("[" * 5000, '{"credentials": ' + "[" * 5000),
        slow=True,
    ),
    "restored": Target(
        parsers=("mooring.credentials:restore", "mooring.credentials:_seal"),
        inputs=kernel.REVEALED,
        check=kernel.check_restore,
    ),
    "stored-row": Target(
        parsers=("mooring.store._sqlite:SqliteStore._connector", "mooring.store._sqlite:_instant"),
        inputs=kernel.ROWS,
        check=kernel.check_row,
        seeds=(
            {},
            {"settings": '{"a": ' + "[" * 5000},
            {"sealed": b"\x81\xa1x" + b"\x91" * 5000 + b"\xc0"},
            {"ttl": 1e300},
        ),
        slow=True,
    ),
    "recorded-row": Target(
        parsers=tuple(f"mooring.store._ledger:{name}" for name in ("lease_in", "holder_in", "event_in")),
        inputs=kernel.RECORD_ROWS,
        check=kernel.check_record,
        seeds=(
            ("leases", {}),
            ("leases", {"ttl": 9e99}),
            ("leases", {"undo": "[" * 5000}),
            ("leases", {"expires_at": "2026-01-01T00:00:00"}),
            ("events", {"at": "then"}),
            ("events", {"body": '{"a": ' + "[" * 5000}),
        ),
        slow=True,
    ),
    "audit-entry": Target(
        parsers=("mooring.store._ledger:entry_in",),
        inputs=kernel.ENTRIES,
        check=kernel.check_entry,
        seeds=(b'{"a": ' + b"[" * 5000,),
        large=lambda text: kernel.msgspec.json.encode(kernel.ENTRY | {"consumer": text}),
    ),
    "mountinfo": Target(
        parsers=("mooring.store._files:file_system",),
        inputs=kernel.MOUNTINFO,
        check=kernel.check_mounts,
        seeds=(b"", b"\n", b"36 35 98:0 / /mnt rw\n", b"36 35 98:0 / / rw - \n", b"a b c d /\\000 - x"),
        slow=True,
    ),
    "environment": Target(
        parsers=("mooring.assembly:settings_from",),
        inputs=kernel.ENVIRONMENTS,
        check=kernel.check_environment,
        seeds=({"MOORING_HOME": "~nobody-there/x"}, {"MOORING_HOME": "~\ud800"}, {"MOORING_HOME": "~\x00"}),
    ),
    "columns": Target(
        parsers=("mooring.cli._output:width",),
        inputs=near(["80", "0"]),
        check=kernel.check_columns,
        seeds=("²", "9" * 5000),
    ),
    "span": Target(
        parsers=("mooring.cli._values:span", "mooring.cli._values:_numbers"),
        inputs=kernel.SPANS,
        check=kernel.check_span,
        seeds=("9" * 5000,),
        large=str,
    ),
    "labels": Target(
        parsers=("mooring.cli._values:labels", "mooring.cli._values:wanted_labels"),
        inputs=st.lists(near(["team=ml", "empty=", "env"], ["="]), max_size=4),
        check=kernel.check_labels,
        large=lambda text: [text],
    ),
    "options": Target(
        parsers=("mooring.cli._values:to_span", "mooring.cli._values:to_skew", "mooring.cli._values:to_instant"),
        inputs=kernel.SPANS | kernel.INSTANTS,
        check=kernel.check_options,
        seeds=("9" * 5000, CANARY),
        large=str,
    ),
    "arguments": Target(
        parsers=("mooring.cli._fields:split", "mooring.cli._fields:_field", "mooring.cli._fields:values"),
        inputs=kernel.ARGUMENTS,
        check=kernel.check_arguments,
        seeds=(["--key=\udcff"], ["--spare", f"{CANARY}\udcff"], ["--key", "-", "--spare", "-"]),
        large=lambda text: [f"--url={text}", f"--key={text}", f"--tags={text}"],
    ),
    "secret-source": Target(
        parsers=("mooring.cli._secrets:Source.read", "mooring.cli._secrets:_file", "mooring.cli._secrets:_checked"),
        inputs=kernel.SOURCES,
        check=kernel.check_source,
        seeds=(b"\xff\xfe", b"x\r\ny\r\n", b"\n"),
        slow=True,
    ),
    "registration": Target(
        parsers=("mooring.broker._register:check_name", "mooring.broker._register:check_labels"),
        inputs=kernel.REGISTRATIONS,
        check=kernel.check_registration,
        slow=True,
    ),
    "plugin": Target(
        parsers=("mooring.registry:bind", "mooring.registry:_check_parts", "mooring.types:unsealable"),
        inputs=kernel.DESCRIPTIONS,
        check=kernel.check_plugin,
    ),
    "http-reply": Target(
        parsers=("mooring.http:Http._call", "mooring.http:_refusal", "mooring.http:_retry_after"),
        inputs=kernel.REPLIES,
        check=kernel.check_http,
        seeds=((429, {"retry-after": b"9" * 400}, b""), (200, {}, b"[" * 100_000)),
        slow=True,
    ),
    "http-address": Target(
        parsers=("mooring.http:Http.at", "mooring.http:_host"),
        inputs=kernel.ADDRESSES,
        check=kernel.check_address,
        large=str,
    ),
    # the AWS plugin
    "aws-id": Target(
        parsers=(
            "mooring_aws.ids:canonical",
            *(f"mooring_aws.ids:{name}" for name in ("_account", "_s3", "_eks", "_ecr")),
        ),
        inputs=aws.IDS,
        check=aws.check_id,
        seeds=tuple((kind, text) for kind, texts in aws.FORMS.items() for text in texts),
        large=lambda text: (aws.ids.S3, f"s3://data/{text}"),
    ),
    "aws-cluster": Target(
        parsers=("mooring_aws.ids:_eks",),
        inputs=st.tuples(st.just(aws.ids.EKS), near(aws.FORMS[aws.ids.EKS], aws.PIECES)),
        check=aws.check_id,
        large=lambda text: (aws.ids.EKS, text),
    ),
    "aws-registry": Target(
        parsers=("mooring_aws.ids:_ecr", "mooring_aws.ids:repository_of"),
        inputs=st.tuples(st.just(aws.ids.ECR), near(aws.FORMS[aws.ids.ECR], aws.PIECES)),
        check=aws.check_id,
        large=lambda text: (aws.ids.ECR, f"{aws.ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/{text}"),
    ),
    "aws-alias": Target(
        parsers=("mooring_aws.ids:qualify", "mooring_aws.ids:_of_arn", "mooring_aws.ids:account_of"),
        inputs=aws.ALIASES,
        check=aws.check_aliases,
    ),
    "aws-covers": Target(parsers=("mooring_aws.ids:covers",), inputs=aws.COVERS, check=aws.check_covers),
    "aws-settings": Target(
        parsers=(
            "mooring_aws.settings:AwsConfig.__post_init__",
            "mooring_aws.formats:_fits",
            "mooring_aws.formats:check_role",
            "mooring_aws.plan:plan_of",
        ),
        inputs=aws.settings_of(),
        check=aws.check_settings,
        large=lambda text: (
            "iam-role",
            {**{name: aws.FIELDS[name] for name in aws.MINIMAL["iam-role"]}, "external_id": text},
        ),
    ),
    "aws-policy": Target(
        parsers=("mooring_aws.formats:_is_policy", "mooring_aws.policy:session_policy", "mooring_aws.policy:compact"),
        inputs=aws.POLICIES,
        check=aws.check_policy,
        seeds=(
            '{"Statement": {"a": NaN}}',
            '{"Statement": [{"a": 1e999}]}',
            '{"Statement": [{"a": "\ud800"}]}',
            '{"Statement": [{"a": ' + "[" * 900 + "]" * 900 + "}]}",
        ),
        large=str,
    ),
    "aws-session-name": Target(
        parsers=("mooring_aws.sts:session_name",),
        inputs=st.tuples(near(["prod"]), near(["ann@host"])),
        check=aws.check_session_name,
        large=lambda text: (text, text),
    ),
    "aws-endpoints": Target(
        parsers=("mooring_aws.endpoints:_environment", "mooring_aws.endpoints:endpoints_of"),
        inputs=aws.ENVIRONMENTS,
        check=aws.check_endpoints,
    ),
    "aws-failure": Target(
        parsers=tuple(f"mooring_aws.errors:{name}" for name in ("translate", "_answered", "_redirected", "plain")),
        inputs=aws.FAILURES,
        check=aws.check_failure,
        large=lambda text: ({"Error": {"Code": text[:64], "Message": text}}, "s3:ListBuckets", text),
    ),
    "aws-token-file": Target(
        parsers=("mooring_aws.sts:_web_token", "mooring_aws.sts:_token_in"),
        inputs=aws.TOKENS,
        check=aws.check_token_file,
        slow=True,
    ),
    "aws-answer": Target(
        parsers=(
            "mooring_aws.errors:given",
            "mooring_aws.credentials:Keys.answered",
            "mooring_aws.session:AwsSession._whoami",
            "mooring_aws.s3:discover",
            "mooring_aws.eks:discover",
            "mooring_aws.eks:access",
            "mooring_aws.eks:_pem",
            "mooring_aws.ecr:discover",
            "mooring_aws.ecr:login",
            "mooring_aws.ecr:_login",
        ),
        inputs=aws.ANSWERS,
        check=aws.check_answer,
        seeds=tuple((call, 200, {}, aws.GOOD[call]) for call in aws.CALLS),
        slow=True,
    ),
    "aws-lift": Target(
        parsers=(
            "mooring_aws.lift:_find",
            "mooring_aws.lift:_profile_role",
            "mooring_aws.lift:_static",
            "mooring_aws.lift:_places",
            "mooring_aws.lift:_web_identity",
            "mooring_aws.machine:found_by",
        ),
        inputs=aws.FILES,
        check=aws.check_lift,
        seeds=tuple(
            (aws.CONFIG.encode(), aws.SHARED_FILE.encode(), profile, None) for profile in (None, "dev", "base")
        ),
        slow=True,
    ),
    # the Docker plugin
    "docker-id": Target(
        parsers=(
            "mooring_docker.ids:canonical",
            *(
                f"mooring_docker.ids:{name}"
                for name in ("_place", "_inside", "_without_scheme", "_ambiguous", "_known")
            ),
            "mooring_docker.ids:registry_of",
        ),
        inputs=docker.IDS,
        check=docker.check_id,
        seeds=(*docker.FORMS, "A/", "HOST/app", "\u212a.io/app"),
        large=str,
    ),
    "docker-image": Target(
        parsers=("mooring_docker.ids:image",), inputs=docker.IDS, check=docker.check_image, large=str
    ),
    "docker-settings": Target(
        parsers=(
            "mooring_docker.settings:RegistryConfig.__post_init__",
            "mooring_docker.settings:PasswordConfig.__post_init__",
            "mooring_docker.settings:_fits",
            "mooring_docker.ids:is_loopback",
        ),
        inputs=docker.settings_of(),
        check=docker.check_settings,
        large=lambda text: ("password", docker.FIELDS | {"token": None, "registry": text, "password": text}),
    ),
    "docker-challenge": Target(
        parsers=("mooring_docker.challenge:challenges",),
        inputs=docker.CHALLENGES,
        check=docker.check_challenge,
        large=str,
    ),
    "docker-realm": Target(
        parsers=(
            "mooring_docker.session:RegistrySession._token_server",
            "mooring_docker.session:RegistrySession._is_own",
        ),
        inputs=docker.REALMS,
        check=docker.check_realm,
        large=lambda text: f"https://r.org/{text}",
    ),
    "docker-token": Target(
        parsers=("mooring_docker.grant:claims_of",), inputs=docker.TOKENS, check=docker.check_token, large=str
    ),
    "docker-grant": Target(
        parsers=("mooring_docker.grant:granted",),
        inputs=docker.GRANTS,
        check=docker.check_grant,
        large=lambda text: {"token": text},
    ),
    "docker-link": Target(
        parsers=("mooring_docker.repositories:_next_of",), inputs=docker.LINKS, check=docker.check_link, large=str
    ),
    "docker-lift": Target(
        parsers=("mooring_docker.files:_parsed", "mooring_docker.lift:_pair", "mooring_docker.helpers:_run"),
        inputs=docker.FILES,
        check=docker.check_lift,
        slow=True,
    ),
    "docker-helper": Target(
        parsers=("mooring_docker.helper:_values", "mooring_docker.helpers:_values"),
        inputs=docker.HELPER_ANSWERS,
        check=docker.check_helper,
    ),
    "docker-request": Target(
        parsers=("mooring_docker.helper:_requested", "mooring_docker.helper:_host"),
        inputs=docker.REQUESTS,
        check=docker.check_request,
        large=lambda text: text.encode("utf-8", "surrogatepass"),
    ),
    "docker-login": Target(
        parsers=(
            "mooring_docker.files:change",
            "mooring_docker.helper:_entries",
            "mooring_docker.login:login",
            "mooring_docker.login:logout",
        ),
        inputs=docker.CHANGED,
        check=docker.check_change,
        seeds=tuple(
            (b"{}", json.dumps({docker.HOST: {"connector": "mine", "files": files}}).encode(), False)
            for files in (None, ["\0"], ["\ud800"])
        ),
        slow=True,
    ),
    # the Kubernetes plugin
    "kubernetes-id": Target(
        parsers=("mooring_kubernetes.ids:canonical", "mooring_kubernetes.ids:address_of"),
        inputs=kubernetes.IDS,
        check=kubernetes.check_id,
        seeds=(*kubernetes.FORMS, "http://[:::1]:80/"),
        large=str,
    ),
    "kubernetes-settings": Target(
        parsers=(
            "mooring_kubernetes.formats:check_server",
            "mooring_kubernetes.formats:_fits",
            "mooring_kubernetes.way:endpoint_of",
        ),
        inputs=kubernetes.settings_of(),
        check=kubernetes.check_settings,
        large=lambda text: ("token", kubernetes.FIELDS | {"server": text, "token": text}),
    ),
    "kubernetes-key": Target(
        parsers=(
            "mooring_kubernetes.formats:private_key",
            "mooring_kubernetes.formats:_pem",
            "mooring_kubernetes.claims:subject_of_certificate",
            "mooring_kubernetes.claims:ends_of_certificate",
        ),
        inputs=kubernetes.PEMS,
        check=kubernetes.check_pem,
        large=str,
    ),
    "kubernetes-certificate": Target(
        parsers=("mooring_kubernetes.formats:certificates",),
        inputs=kubernetes.PEMS,
        check=kubernetes.check_certificate,
        seeds=(kubernetes.PEM.replace("\n", "\x85\n", 1),),
        large=str,
    ),
    "kubernetes-claims": Target(
        parsers=("mooring_kubernetes.claims:_claims", "mooring_kubernetes.claims:subject_of_token"),
        inputs=kubernetes.TOKENS,
        check=kubernetes.check_claims,
        large=str,
    ),
    "kubernetes-yaml": Target(
        parsers=("mooring_kubernetes.plain:plain",),
        inputs=kubernetes.TEXTS,
        check=kubernetes.check_plain,
        slow=True,
    ),
    "kubeconfig": Target(
        parsers=(
            "mooring_kubernetes.kubeconfig:parsed",
            "mooring_kubernetes.kubeconfig:_data",
            "mooring_kubernetes.kubeconfig:named",
        ),
        inputs=kubernetes.TEXTS,
        check=kubernetes.check_kubeconfig,
        slow=True,
    ),
    "kubeconfig-lift": Target(
        parsers=("mooring_kubernetes.lift:_contexts", "mooring_kubernetes.lift:_lifted"),
        inputs=kubernetes.FILES,
        check=kubernetes.check_lift,
        slow=True,
    ),
    "kubeconfig-edit": Target(
        parsers=(
            "mooring_kubernetes.edit:_changed",
            "mooring_kubernetes.style:styled",
            "mooring_kubernetes.style:_is_json",
            "mooring_kubernetes.login:login",
        ),
        inputs=kubernetes.FILES,
        check=kubernetes.check_edit,
        slow=True,
    ),
    "exec-credential": Target(
        parsers=("mooring_kubernetes.program:_printed",),
        inputs=kubernetes.PRINTED,
        check=kubernetes.check_printed,
    ),
    "exec-info": Target(
        parsers=("mooring_kubernetes.render:_version",),
        inputs=kubernetes.INFOS,
        check=kubernetes.check_info,
        large=str,
    ),
    "kubernetes-answer": Target(
        parsers=(
            "mooring_kubernetes.errors:refusal",
            "mooring_kubernetes.errors:denied_user",
            "mooring_kubernetes.issue:_token_of",
            "mooring_kubernetes.issue:_instant",
        ),
        inputs=kubernetes.ANSWERS,
        check=kubernetes.check_answer,
    ),
    "kubernetes-cluster": Target(
        parsers=(
            "mooring_kubernetes.session:_object",
            "mooring_kubernetes.cluster:version",
            "mooring_kubernetes.cluster:_reviewed",
        ),
        inputs=kubernetes.BODIES,
        check=kubernetes.check_cluster,
    ),
    "http-answer": Target(parsers=("mooring.http:Answer.json",), inputs=docker.ANSWERS, check=docker.check_answer),
}
