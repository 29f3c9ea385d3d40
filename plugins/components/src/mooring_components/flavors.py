"""Flavors: what kinds of artifact stores, orchestrators, registries there are, and what each needs of a connector.

Packages declare more by the hook `mooring_flavors`, in an entry point of the group `mooring.flavors`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from importlib.metadata import entry_points
from typing import Annotated, Any

import msgspec
import pluggy

import mooring as m

PROJECT = "mooring_components"
flavorspec = pluggy.HookspecMarker(PROJECT)
flavorimpl = pluggy.HookimplMarker(PROJECT)

TYPES: dict[str, str] = {
    "artifact-store": "Where runs keep what they make",
    "orchestrator": "What runs the steps of a pipeline",
    "container-registry": "Where images are kept",
    "step-operator": "What runs single steps elsewhere",
    "model-deployer": "What serves models",
    "image-builder": "What builds images",
}
"""The component types that are always there, with what each is."""


class Opening(m.types.Struct, kw_only=True):
    """What a flavor opens a component with."""

    broker: m.Broker
    connector: str
    """The id of the connector that it is connected to; empty where a secret serves."""
    resource_type: str
    resource_id: str | None
    config: m.Config
    secret: Mapping[str, m.Secret] = {}
    """The values of the secret that it takes instead of a connector."""
    access: m.Access
    consumer: str


class Flavor(m.types.Struct, kw_only=True):
    """One kind of component."""

    name: str
    component_types: tuple[str, ...]
    title: str = ""
    config: type[m.Config]
    """Its fields."""
    resource_type: str | None = None
    """What it needs of a connector; None if it needs none."""
    resource_id: Callable[[Any], str | None] = lambda _config: None
    """The id that its configuration stands for; None for whatever the connector reaches."""
    secret_keys: tuple[str, ...] = ()
    """The keys that a secret must have that serves instead of a connector; none does, if empty."""
    open: Callable[[Opening], AbstractAsyncContextManager[Any]] | None = None
    """Something else than the connector's native client."""


def _path(scheme: str, place: str) -> Any:
    pattern, text = rf"^{scheme}://[^\s/]\S*$(?!\n)", f"{scheme}://{place}[/PREFIX]"
    return msgspec.Meta(pattern=pattern, description=text, extra_json_schema={"format": "uri"})


def _told(description: str) -> Any:
    return msgspec.Meta(description=description)


class S3(m.Config):
    """An artifact store in S3, or in a store that speaks its API."""

    path: Annotated[str, _path("s3", "BUCKET")]
    endpoint_url: Annotated[str | None, _told("of a store that is not AWS's; with a connector, that has its own")] = (
        None
    )
    region: Annotated[str | None, _told("with a connector, that has its own")] = None


class Gcs(m.Config):
    """An artifact store in Google Cloud Storage."""

    path: Annotated[str, _path("gs", "BUCKET")]


class AzureBlob(m.Config):
    """An artifact store in Azure Blob Storage."""

    path: Annotated[str, _path("az", "CONTAINER")]


class Cluster(m.Config):
    """What runs in a Kubernetes cluster."""

    cluster: Annotated[str | None, _told("as the connector names it; left out, the only one that it reaches")] = None
    namespace: Annotated[str, _told("where it runs")] = "default"


class Registry(m.Config):
    """A container registry."""

    uri: Annotated[str, msgspec.Meta(pattern=r"^[^\s/:]+(:\d+)?(/\S*)?$(?!\n)", description="HOST[/REPOSITORY]")]


class Local(m.Config):
    """What runs on the machine at hand."""


def _uri(config: Any) -> str:
    return str(config.uri).rstrip("/")


@asynccontextmanager
async def _s3(opening: Opening) -> AsyncGenerator[Any, None]:
    from mooring_components.s3 import file_system

    async with file_system(opening) as system:
        yield system


IN_CLUSTER = ("orchestrator", "step-operator")
AWS_KEYS = ("aws_access_key_id", "aws_secret_access_key")
OURS = (
    Flavor(name="s3", component_types=("artifact-store",), title="Amazon S3", config=S3, resource_type="s3-bucket",
           resource_id=lambda config: config.path, secret_keys=AWS_KEYS, open=_s3),
    Flavor(name="gcs", component_types=("artifact-store",), title="Google Cloud Storage", config=Gcs,
           resource_type="gcs-bucket", resource_id=lambda config: config.path),
    Flavor(name="azure-blob", component_types=("artifact-store",), title="Azure Blob Storage", config=AzureBlob,
           resource_type="blob-container", resource_id=lambda config: config.path),
    Flavor(name="kubernetes", component_types=IN_CLUSTER, title="Kubernetes", config=Cluster,
           resource_type="kubernetes-cluster", resource_id=lambda config: config.cluster),
    Flavor(name="kubeflow", component_types=("orchestrator",), title="Kubeflow Pipelines", config=Cluster,
           resource_type="kubernetes-cluster", resource_id=lambda config: config.cluster),
    Flavor(name="tekton", component_types=("orchestrator",), title="Tekton", config=Cluster,
           resource_type="kubernetes-cluster", resource_id=lambda config: config.cluster),
    Flavor(name="kserve", component_types=("model-deployer",), title="KServe", config=Cluster,
           resource_type="kubernetes-cluster", resource_id=lambda config: config.cluster),
    Flavor(name="seldon", component_types=("model-deployer",), title="Seldon Core", config=Cluster,
           resource_type="kubernetes-cluster", resource_id=lambda config: config.cluster),
    Flavor(name="kaniko", component_types=("image-builder",), title="kaniko", config=Cluster,
           resource_type="kubernetes-cluster", resource_id=lambda config: config.cluster),
    Flavor(name="local", component_types=("orchestrator", "image-builder"), title="This machine", config=Local),
    *(Flavor(name=name, component_types=("container-registry",), title=title, config=Registry,
             resource_type="docker-registry", resource_id=_uri)
      for name, title in (("docker", "Any registry"), ("dockerhub", "Docker Hub"), ("ecr", "Amazon ECR"),
                          ("gcr", "Google Artifact Registry"), ("acr", "Azure Container Registry"))),
)  # fmt: skip


class Hooks:
    """What a package that adds flavors implements."""

    @flavorspec
    def mooring_flavors(self) -> Iterable[Flavor]:
        """Its flavors; one of a new component type adds that type."""
        return ()


class Flavors:
    """All flavors: ours, and those of installed packages."""

    def __init__(self, plugins: Iterable[object] | None = None) -> None:
        """Take these plugins; the installed ones, unless given."""
        self._plugins = plugins
        self._builders: dict[type[m.Config], Callable[[Mapping[str, Any]], m.Config]] = {}

    @cached_property
    def _known(self) -> dict[tuple[str, str], Flavor]:
        found = {(kind, one.name): one for one in OURS for kind in one.component_types}
        for flavor in self._declared():
            for kind in flavor.component_types:
                if (kind, flavor.name) in found:
                    raise m.PluginConflict(f"two packages declare the flavor {flavor.name!r} of {kind}; remove one")
                found[kind, flavor.name] = flavor
        return found

    def _declared(self) -> list[Flavor]:
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hooks)
        for plugin in self._plugins if self._plugins is not None else _installed():
            manager.register(plugin)
        declared = [one for given in manager.hook.mooring_flavors() for one in given]
        for one in declared:
            if not isinstance(one, Flavor):
                raise m.BrokenPlugin(f"a package gave a {type(one).__name__} for a flavor; report it to its author")
        return declared

    def build(self, flavor: Flavor, values: Mapping[str, Any]) -> m.Config:
        """A configuration of a flavor, whose type is looked into once: lists build many.

        Raises:
            InvalidConfig: the values are none.
        """
        if flavor.config not in self._builders:
            self._builders[flavor.config] = m.types.config_builder(flavor.config)
        return self._builders[flavor.config](values)

    def types(self) -> dict[str, str]:
        """The component types, and what each is."""
        return TYPES | {kind: "" for kind, _ in self._known if kind not in TYPES}

    def of(self, kind: str) -> list[Flavor]:
        """The flavors of a component type, by name."""
        return sorted((one for (of, _), one in self._known.items() if of == kind), key=lambda one: one.name)

    def check_type(self, kind: str) -> None:
        """Refuse what is no component type.

        Raises:
            InvalidConfig: it is none.
        """
        if kind not in (known := self.types()):
            raise m.InvalidConfig(f"there is no component type {kind!r}; {m.errors.suggest(kind, known)}", field="type")

    def find(self, kind: str, name: str) -> Flavor:
        """A flavor.

        Raises:
            InvalidConfig: there is no such component type, or none of that name.
        """
        if (kind, name) in self._known:
            return self._known[kind, name]
        self.check_type(kind)
        names = [one.name for one in self.of(kind)]
        raise m.InvalidConfig(f"there is no flavor {name!r} of {kind}; {m.errors.suggest(name, names)}", field="flavor")


def _installed() -> list[object]:
    found = []
    for point in entry_points(group="mooring.flavors"):
        try:
            found.append(point.load())
        except Exception as error:  # noqa: BLE001  a package may raise anything; its text may be anything too
            raise m.BrokenPlugin(
                f"the flavors of {point.name!r} cannot be loaded ({type(error).__name__}); reinstall or remove it"
            ) from None
    return found
