"""Kubernetes for mooring: any cluster by five auth methods, and clients, kubeconfigs and logins for whoever issued.

`connector` is the plugin; importing it loads no Kubernetes SDK.
"""

from __future__ import annotations

from mooring_kubernetes.connector import connector

__all__ = ["connector"]
