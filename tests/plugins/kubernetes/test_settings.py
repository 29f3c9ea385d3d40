"""What a configuration refuses, with one clear error that names the field and never says its value."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import mooring as m
from mooring.types import split_config
from mooring_kubernetes import connector

SERVER = {"server": "https://k8s.example.org:6443"}
CANARY = "canary-0123456789"


def refusal(settle: Any, method: str, **fields: Any) -> m.MooringError:
    with pytest.raises(m.MooringError) as caught:
        settle(method, **fields)
    assert "\n" not in caught.value.message
    assert CANARY not in caught.value.message
    assert caught.value.__context__ is None
    return caught.value


@pytest.mark.parametrize(
    ("method", "fields", "field"),
    [
        ("token", {**SERVER, "token": f"{CANARY}\n"}, "token"),
        ("token", {**SERVER, "token": f"{CANARY} {CANARY}"}, "token"),
        ("token", {"server": f"https://ann:{CANARY}@k8s.example.org", "token": "t"}, "server"),
        ("token", {"server": "k8s.example.org", "token": "t"}, "server"),
        ("token", {"server": "https://k8s.example.org:99999", "token": "t"}, "server"),
        ("token", {"server": "http://k8s.example.org", "token": "t"}, "server"),
        ("token", {**SERVER, "token": "t", "certificate_authority": CANARY}, "certificate_authority"),
        (
            "token",
            {**SERVER, "token": "t", "certificate_authority": base64.b64encode(CANARY.encode()).decode()},
            "certificate_authority",
        ),
        (
            "token",
            {
                **SERVER,
                "token": "t",
                "certificate_authority": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            },
            "certificate_authority",
        ),
        ("token", {**SERVER, "token": "t", "proxy_url": f"http://ann:{CANARY}@proxy"}, "proxy_url"),
        ("token", {**SERVER, "token": "t", "tls_server_name": "a b"}, "tls_server_name"),
        ("token", {**SERVER, "token": "t", "service_account": "bot"}, "service_account"),
        ("token", {**SERVER, "token": "t", "service_account": "../x/bot"}, "service_account"),
        ("token", {**SERVER, "token": "t", "audiences": ["vault"]}, "audiences"),
        ("token", {**SERVER, "token": "t", "namespace": "a/b"}, "namespace"),
        ("token", {**SERVER, "token": "t", "cluster_name": "https://x"}, "cluster_name"),
        ("password", {**SERVER, "username": "a:b", "password": "p"}, "username"),
        ("password", {**SERVER, "username": "a", "password": f"{CANARY}\r\n"}, "password"),
        ("client-certificate", {**SERVER, "client_certificate": "x", "client_key": CANARY}, "client_certificate"),
        ("kubeconfig", {}, "kubeconfig"),
        ("kubeconfig", {"kubeconfig": CANARY, "kubeconfig_file": "x"}, "kubeconfig"),
        ("kubeconfig", {"kubeconfig_file": "x", "exec_commands": ["aws"]}, "exec_commands"),
    ],
)
def test_a_malformed_field_is_named(settle: Any, method: str, fields: dict[str, Any], field: str) -> None:
    problem = refusal(settle, method, **fields)
    assert isinstance(problem, m.InvalidConfig)
    assert problem.field == field


def test_a_key_that_is_none_or_encrypted(settle: Any, authority: Any) -> None:
    certificate, _ = authority.client("ann")
    encrypted = f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{CANARY}\n-----END ENCRYPTED PRIVATE KEY-----"
    for key, said in ((CANARY, "no private key"), (encrypted, "is encrypted")):
        problem = refusal(settle, "client-certificate", **SERVER, client_certificate=certificate, client_key=key)
        assert said in problem.message


def test_a_ca_goes_without_what_makes_it_useless(settle: Any, authority: Any) -> None:
    fields = {**SERVER, "token": "t", "certificate_authority": authority.pem}
    assert settle("token", **fields)
    assert refusal(settle, "token", **fields, insecure_skip_tls_verify=True)
    assert settle("token", server="http://127.0.0.1:8001", token="t")
    assert settle("token", server="http://proxy.example.org", token="t", insecure_skip_tls_verify=True)


def kubeconfig(user: Any = None, cluster: Any = None, **more: Any) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster or {"server": "https://k8s.example.org"}}],
        "users": [{"name": "u", "user": user or {"token": CANARY}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return yaml.safe_dump(document | more)


BOMB = "a0: &a0 [a, a]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 9))
"""Nine to the eighth of two texts."""
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws", "args": ["eks", "get-token"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a: [{CANARY}", r"is no YAML \(line 1\)"),
        (CANARY, "is no kubeconfig"),
        ("kind: Pod", "is no kubeconfig"),
        ("[" * 5000, "is no YAML"),
        ("x" * 2_000_000, "longer than 1 MiB"),
        (f"a: !!bool {CANARY}", "is no YAML"),
        ("a: !!int ''", "is no YAML"),
        (f"a: !!timestamp {CANARY}", "is no YAML"),
        ("a: &a [*a]", "is no YAML"),
        ("a: 1" + ":1" * 300_000, "is no YAML"),
        (BOMB.replace("[a, a]", "{a: b}").replace("[", "{<<: [").replace("]", "]}"), "is no YAML"),
        (f"{BOMB}current-context: *a8\n", "is no YAML"),
        ("current-context: [x]", "current-context that is no text"),
        ("clusters: 1", "broken list of clusters"),
        ("clusters: [{name: 1}]", "broken list of clusters"),
        ("{}", "no current context"),
        (kubeconfig(**{"current-context": "y"}), "no such context; known: x"),
        (kubeconfig(contexts=[{"name": "x", "context": {"cluster": "other", "user": "u"}}]), "no such cluster"),
        (kubeconfig({"username": 1}), "is no text"),
        (kubeconfig({"token": f"{CANARY}\n"}), "line break"),
        (kubeconfig({"impersonate": "x"}), "no credentials"),
        (kubeconfig({"token": CANARY, "as": "root"}), "acts as another"),
        (kubeconfig({"tokenFile": "/etc/passwd"}), "refers to files"),
        (kubeconfig({"auth-provider": {"name": "gcp"}}), "gke-gcloud-auth-plugin"),
        (kubeconfig({"auth-provider": {"name": CANARY}}), "dropped in 1.26"),
        (kubeconfig({"client-certificate-data": "?", "client-key-data": "?"}), "not in base64"),
        (kubeconfig({"exec": EXEC | {"apiVersion": "client.authentication.k8s.io/v1alpha1"}}), "apiVersion"),
        (kubeconfig({"exec": {"command": ["a"]}}), "broken exec"),
        (kubeconfig(cluster={"server": "http://k8s.example.org"}), "no TLS"),
        (kubeconfig(cluster={"server": "https://k8s", "insecure-skip-tls-verify": True}), "trust whoever answers"),
        (kubeconfig(cluster={"server": "https://k8s", "certificate-authority-data": "AAAA"}), "base64|certificate"),
        (
            kubeconfig(cluster={"server": "https://k8s", "certificate-authority-data": "bm9wZQ=="}),
            "in the kubeconfig, field 'certificate-authority' is no certificate",
        ),
        (
            kubeconfig(cluster={"server": "https://k8s", "proxy-url": f"http://u:{CANARY}@p:1"}),
            "in the kubeconfig, field 'proxy-url' is malformed",
        ),
    ],
)
def test_a_broken_or_hostile_kubeconfig(settle: Any, text: str, said: str) -> None:
    problem = refusal(settle, "kubeconfig", kubeconfig=text)
    assert isinstance(problem, m.InvalidConfig)
    assert re.search(said, problem.message), problem.message


def test_a_file_given_as_the_kubeconfig_itself(settle: Any) -> None:
    problem = refusal(settle, "kubeconfig", kubeconfig=f"/home/ann/{CANARY}")
    assert "with --kubeconfig-file FILE, or give what it holds with --kubeconfig @FILE" in problem.message


def test_the_cluster_s_name_is_the_context_s_own(tmp_path: Path) -> None:
    context = {"name": "dev", "context": {"cluster": "lab", "user": "ann"}}
    document = {
        "clusters": [{"name": "lab", "cluster": {"server": "https://k8s.example.org"}}],
        "users": [{"name": "ann", "user": {"token": CANARY}}],
        "contexts": [context],
        "current-context": "dev",
    }
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(document))
    method = connector.describe().auth_method("kubeconfig")
    assert method is not None
    for fields in ({"kubeconfig_file": str(file)}, {"kubeconfig": m.Secret(file.read_text())}):
        made: Any = m.build_config(method.config, fields)
        assert made.cluster_name == "lab"
        assert split_config(made)[0]["cluster_name"] == "lab"
    named: Any = m.build_config(method.config, {"kubeconfig_file": "nowhere", "cluster_name": "mine"})
    assert named.cluster_name == "mine"
    for broken, said in (("contexts: [", "is no YAML"), ("contexts: []", "no current context")):
        file.write_text(broken)
        with pytest.raises(m.InvalidConfig, match=said):
            m.build_config(method.config, {"kubeconfig_file": str(file)})


def test_data_in_several_lines(settle: Any, authority: Any) -> None:
    """As `base64` without -w 0 writes them, and kubectl reads them."""
    lines = base64.encodebytes(authority.pem.encode()).decode()
    assert lines.count("\n") > 2
    assert settle(
        "kubeconfig", kubeconfig=kubeconfig(cluster={"server": "https://k8s", "certificate-authority-data": lines})
    )


def test_a_program_runs_only_where_it_is_allowed(settle: Any) -> None:
    text = kubeconfig({"exec": EXEC})
    for fields in ({}, {"allow_exec": True}, {"allow_exec": True, "exec_commands": ["aws2", "/bin/aws"]}):
        problem = refusal(settle, "kubeconfig", kubeconfig=text, **fields)
        assert isinstance(problem, m.NotPermitted)
        assert "'aws'" in problem.message
    assert settle("kubeconfig", kubeconfig=text, allow_exec=True, exec_commands=["aws"])


def test_describing() -> None:
    kind = connector.describe()
    assert [method.name for method in kind.auth_methods] == [
        "token", "password", "client-certificate", "service-account", "kubeconfig",
    ]  # fmt: skip
    assert [method.name for method in kind.auth_methods if method.implicit] == ["service-account"]
    assert "1.19" in kind.auth_methods[1].description
    secret = {"token", "password", "client_key", "kubeconfig"}
    assert {one.name for method in kind.auth_methods for one in m.fields_of(method.config) if one.secret} == secret
    assert all(one.description for method in kind.auth_methods for one in m.fields_of(method.config))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("prod", "prod"),
        (" gke_p_europe-west1_c ", "gke_p_europe-west1_c"),
        ("arn:aws:eks:eu-west-1:123456789012:cluster/c", "arn:aws:eks:eu-west-1:123456789012:cluster/c"),
        ("https://K8S.example.org:443/", "https://k8s.example.org"),
        ("https://[::1]:6443", "https://[::1]:6443"),
        ("", None),
        ("a b", None),
        ("-x", None),
        ("ftp://k8s.example.org", None),
        ("https://ann@k8s.example.org", None),
    ],
)
def test_the_forms_of_an_id(text: str, form: str | None) -> None:
    if form is None:
        with pytest.raises(m.InvalidConfig):
            connector.canonical("kubernetes-cluster", text)
    else:
        assert connector.canonical("kubernetes-cluster", text) == form


@given(st.text(max_size=80))
def test_a_canonical_id_stays_what_it_is(text: str) -> None:
    try:
        form = connector.canonical("kubernetes-cluster", text)
    except m.InvalidConfig:
        return
    assert connector.canonical("kubernetes-cluster", form) == form


def test_another_type_and_another_cluster() -> None:
    with pytest.raises(m.UnsupportedResource):
        connector.canonical("s3-bucket", "b")
    with pytest.raises(m.UnsupportedResource):
        connector.qualify("kubernetes-cluster", "https://other.example.org", {"cluster_name": "c", **SERVER})


KUBECONFIG = """
clusters: [{name: c, cluster: {server: "https://k8s.example.org:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.mark.parametrize(
    ("method", "fields", "endpoint"),
    [
        ("token", {"server": "https://10.0.0.1:6443", "token": "t"}, "10.0.0.1:6443"),
        ("token", {"server": "https://[::1]", "token": "t"}, "[::1]:443"),
        ("password", {"server": "https://k8s.example.org/", "username": "u", "password": "p"}, "k8s.example.org:443"),
        ("service-account", {"server": "https://k8s.example.org"}, "k8s.example.org:443"),
        ("service-account", {}, "10.1.1.1:443"),
        ("kubeconfig", {"kubeconfig": KUBECONFIG}, "k8s.example.org:6443"),
        ("kubeconfig", {"kubeconfig_file": "~/nowhere"}, "the cluster of ~/nowhere (its current context)"),
        ("kubeconfig", {"kubeconfig_file": "~/nowhere", "context": "x"}, "the cluster of ~/nowhere (x)"),
    ],
)
def test_the_endpoint(
    settle: Any, monkeypatch: pytest.MonkeyPatch, method: str, fields: dict[str, Any], endpoint: str
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.1.1.1")
    assert connector.endpoint(settle(method, **fields)) == endpoint
