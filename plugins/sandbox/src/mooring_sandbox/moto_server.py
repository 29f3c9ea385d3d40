"""moto: every other AWS API (EKS, ECR, IAM), answering whatever credentials it is asked with.

`MotoServer` is its keeper's side; run as a module, this file is the server itself.
"""

from __future__ import annotations

import base64
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mooring_sandbox.accounts import ACCOUNT
from mooring_sandbox.ports import LOOPBACK
from mooring_sandbox.process import Server

REGISTRY_TOKEN_LIFE = timedelta(hours=12)
"""Of ECR's GetAuthorizationToken: docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html"""


class MotoServer(Server):
    """One moto server, which chooses its port itself and writes it into its folder."""

    title = "moto"

    def __init__(self, sandbox_folder: Path) -> None:
        super().__init__(sandbox_folder, "moto")
        self._port_file = self.folder / "port"

    @property
    def url(self) -> str:
        """Where all services are served."""
        return f"http://{LOOPBACK}:{self._port_file.read_text()}"

    def command(self) -> list[str]:
        """This module."""
        return [sys.executable, "-m", "mooring_sandbox.moto_server", str(self._port_file)]

    def environment(self) -> dict[str, str]:
        """With the account of the other services."""
        return super().environment() | {"MOTO_ACCOUNT_ID": ACCOUNT}

    def ready(self) -> bool:
        """Whether it has said its port, on which it then listens already."""
        return self._port_file.exists()


def main(port_file: str) -> None:
    """Serve until killed."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    correct_registry_expiry()
    correct_cluster_ca()
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server(LOOPBACK, 0, application, threaded=True, request_handler=MotoRequestHandler)
    unfinished = Path(port_file).with_suffix(".unfinished")
    unfinished.write_text(str(server.port))
    unfinished.replace(port_file)
    server.serve_forever()


def correct_registry_expiry() -> None:
    """Let ECR's tokens end in twelve hours, as AWS's do; moto says 2015-01-01."""
    from moto.ecr.responses import ECRResponse

    theirs: Any = ECRResponse.get_authorization_token

    def get_authorization_token(self: Any) -> Any:
        answer = theirs(self)
        for one in answer.result["authorizationData"]:
            one["expiresAt"] = datetime.now(UTC).replace(microsecond=0) + REGISTRY_TOKEN_LIFE
        return answer

    ECRResponse.get_authorization_token = get_authorization_token  # type: ignore[method-assign]


def correct_cluster_ca() -> None:
    """Give EKS clusters a certificate authority that TLS libraries can read; moto's is random letters."""
    from moto.eks.models import Cluster

    theirs: Any = Cluster.__init__
    authority = base64.b64encode(_authority()).decode()

    def __init__(self: Any, *args: Any, **options: Any) -> None:  # noqa: N807
        theirs(self, *args, **options)
        self.certificate_authority = {"data": authority}

    Cluster.__init__ = __init__  # type: ignore[method-assign]


def _authority() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


if __name__ == "__main__":
    main(sys.argv[1])
