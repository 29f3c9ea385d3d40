"""`KubernetesAccess`, whoever issued it: the one kind of credentials that this plugin serves."""

from __future__ import annotations

import mooring as m


def access_of(credentials: m.Credentials) -> m.KubernetesAccess:
    """The credentials, if they are the way into a cluster.

    Raises:
        UnsupportedResource: they are of another kind.
    """
    if not isinstance(credentials, m.KubernetesAccess):
        raise m.UnsupportedResource("mooring-kubernetes serves KubernetesAccess alone; this is for another plugin")
    return credentials
