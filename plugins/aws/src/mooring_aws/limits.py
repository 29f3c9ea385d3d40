"""How often AWS lets itself be called. A rate and its burst together are what AWS documents for any second.

What is not here has no number that AWS documents (S3 has one for what is in a bucket, not for listing buckets): it has
the bounds of every vendor, and what AWS answers narrows them.
"""

from __future__ import annotations

import mooring as m

PER_SERVICE = ("vendor", "account", "region", "service")
STS, ECR, EKS = ({"vendor": "aws", "service": service} for service in ("sts", "ecr", "eks"))

LIMITS = (
    m.Limit(name="aws-sts", per=("vendor", "region", "service"), where=STS, rate=500, burst=100),
    m.Limit(name="aws-ecr", per=PER_SERVICE, where=ECR, rate=400, burst=100),
    m.Limit(name="aws-eks", per=PER_SERVICE, where=EKS, at_once=20),
)
"""STS takes 600 a second of an account in a region, which for AssumeRole is the account of the key, often one for many
roles; so there is one limit for all. ECR takes 500 GetAuthorizationToken a second, and documents none for what is
listed. EKS documents none: the bound is ours.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html,
https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html
"""
