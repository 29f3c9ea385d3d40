"""The configuration of each auth method: its fields, what they mean, and their formats, checked before any call."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

import mooring as m
from mooring_kubernetes import formats, ids

IN_CLUSTER = "/var/run/secrets/kubernetes.io/serviceaccount"


def _says(description: str) -> Any:
    return msgspec.Meta(description=description)


ClusterName = Annotated[str, _says("what to call the cluster; its resource id")]
OwnClusterName = Annotated[str, _says("what to call the cluster; its name in the kubeconfig if left out")]
Account = Annotated[
    str | None,
    _says("NAMESPACE/NAME of the service account that tokens are issued for; without, there is only the own identity"),
]
Audiences = Annotated[tuple[str, ...], _says("for whom issued tokens are; the API server itself, if left out")]
Namespace = Annotated[str | None, _says("the namespace that clients and kubeconfigs begin in")]
Server = Annotated[str, _says("the API server's address, such as https://10.0.0.1:6443")]
Authority = Annotated[str | None, _says("the CA of the API server, in PEM or its base64; the system's CAs if left out")]
Insecure = Annotated[bool, _says("trust whoever answers at the address: its certificate is not verified")]
AllowInsecure = Annotated[bool, _says("let the kubeconfig switch off that the certificate is verified")]
Proxy = Annotated[str | None, _says("the HTTP proxy on the way; HTTPS_PROXY and NO_PROXY hold if left out")]
ServerName = Annotated[str | None, _says("the name in the API server's certificate, where it is not the address's")]
Token = Annotated[m.Secret, _says("a bearer token, such as a service account's")]
User = Annotated[str, _says("the user's name")]
Password = Annotated[m.Secret, _says("the user's password")]
Certificate = Annotated[str, _says("the client certificate, in PEM or its base64, with those between it and its CA")]
Key = Annotated[m.Secret, _says("the private key of the client certificate, in PEM or its base64, not encrypted")]
InServer = Annotated[str | None, _says("the API server's address; KUBERNETES_SERVICE_HOST and _PORT if left out")]
TokenFile = Annotated[str, _says("the projected token, read anew whenever it has changed")]
AuthorityFile = Annotated[str, _says("the CA of the API server")]
Kubeconfig = Annotated[m.Secret | None, _says("a kubeconfig itself (kubectl config view --flatten --raw)")]
KubeconfigFile = Annotated[str | None, _says("a kubeconfig's file, read anew each time")]
KubeContext = Annotated[str | None, _says("the context to take; the current one if left out")]
AllowExec = Annotated[bool, _says("let the kubeconfig run a program for credentials, if exec_commands lists it")]
ExecCommands = Annotated[
    tuple[str, ...], _says("the programs that the kubeconfig may run: names found on the PATH, or full paths")
]


class KubernetesConfig(m.Config, kw_only=True):
    """What every auth method has: the cluster's name, and for whom tokens are issued."""

    cluster_name: ClusterName
    service_account: Account = None
    audiences: Audiences = ()
    namespace: Namespace = None

    def __post_init__(self) -> None:
        formats.match(
            ids.NAME, self.cluster_name, "cluster_name", "up to 253 letters, digits and ._:/@-, with a letter first"
        )
        if "://" in self.cluster_name:
            raise m.InvalidConfig("field 'cluster_name' is an address; write a name", field="cluster_name")
        if self.service_account is not None:
            formats.match(formats.ACCOUNT, self.service_account, "service_account", "NAMESPACE/NAME")
        if self.audiences and self.service_account is None:
            raise m.InvalidConfig(
                "field 'audiences' is for tokens of a service account; give service_account", field="audiences"
            )
        for audience in self.audiences:
            formats.match(formats.TOKEN, audience, "audiences", "texts without spaces")
        if self.namespace is not None:
            formats.match(formats.NAMESPACE, self.namespace, "namespace", "a namespace's name")

    @property
    def account(self) -> tuple[str, str] | None:
        """The namespace and the name of the service account."""
        if self.service_account is None:
            return None
        namespace, _, name = self.service_account.partition("/")
        return namespace, name


class ServerConfig(KubernetesConfig, kw_only=True):
    """What the auth methods share that are told where the API server is."""

    server: Server
    certificate_authority: Authority = None
    insecure_skip_tls_verify: Insecure = False
    proxy_url: Proxy = None
    tls_server_name: ServerName = None

    def __post_init__(self) -> None:
        super().__post_init__()
        formats.check_server(self.server, insecure=self.insecure_skip_tls_verify)
        formats.check_trust(self.certificate_authority, insecure=self.insecure_skip_tls_verify)
        if self.proxy_url is not None:
            formats.match(formats.PROXY, self.proxy_url, "proxy_url", "http://HOST:PORT, without a user")
        if self.tls_server_name is not None:
            formats.match(formats.HOST, self.tls_server_name, "tls_server_name", "a host's name")


class TokenConfig(ServerConfig, kw_only=True):
    """A bearer token."""

    token: Token

    def __post_init__(self) -> None:
        super().__post_init__()
        formats.check_token(self.token)


class PasswordConfig(ServerConfig, kw_only=True):
    """A user and a password."""

    username: User
    password: Password

    def __post_init__(self) -> None:
        super().__post_init__()
        formats.match(formats.USER, self.username, "username", "a name without a colon or line breaks")
        formats.match(formats.PASSWORD, self.password, "password", "a password without line breaks")


class ClientCertificateConfig(ServerConfig, kw_only=True):
    """A client certificate and its key."""

    client_certificate: Certificate
    client_key: Key

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.server.startswith("https"):
            raise m.InvalidConfig("field 'server' has no TLS, which a client certificate needs", field="server")
        formats.certificates(self.client_certificate, "client_certificate")
        formats.private_key(self.client_key)


class ServiceAccountConfig(KubernetesConfig, kw_only=True):
    """The service account of the pod that mooring runs in."""

    server: InServer = None
    token_file: TokenFile = f"{IN_CLUSTER}/token"
    certificate_authority_file: AuthorityFile = f"{IN_CLUSTER}/ca.crt"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.server is not None:
            formats.check_server(self.server, insecure=False)


class KubeconfigConfig(KubernetesConfig, kw_only=True):
    """A context of a kubeconfig. The name of the cluster is the context's own, where none is given."""

    cluster_name: OwnClusterName = ""
    kubeconfig: Kubeconfig = None
    kubeconfig_file: KubeconfigFile = None
    context: KubeContext = None
    allow_exec: AllowExec = False
    exec_commands: ExecCommands = ()
    insecure_skip_tls_verify: AllowInsecure = False

    def __post_init__(self) -> None:
        if (self.kubeconfig is None) == (self.kubeconfig_file is None):
            raise m.InvalidConfig("give one of the fields 'kubeconfig' and 'kubeconfig_file'", field="kubeconfig")
        if not self.cluster_name:
            from mooring_kubernetes.kubeconfig import cluster_of

            msgspec.structs.force_setattr(self, "cluster_name", cluster_of(self))  # stored with it: read once
        super().__post_init__()
        if self.exec_commands and not self.allow_exec:
            raise m.InvalidConfig("field 'exec_commands' is without effect; set allow_exec too", field="exec_commands")
        if self.kubeconfig is not None:
            from mooring_kubernetes.kubeconfig import way_of

            way_of(self)
