"""AWS for mooring: S3, EKS, ECR and whole accounts, by seven auth methods, narrowed and temporary.

`connector` is the plugin; importing it loads no AWS SDK. `AwsCredentials` is what a caller takes away.
"""

from __future__ import annotations

from mooring_aws.connector import connector
from mooring_aws.credentials import AwsCredentials

__all__ = ["AwsCredentials", "connector"]
