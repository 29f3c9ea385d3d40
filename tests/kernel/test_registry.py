"""The registry: what it refuses and how it says so, and that it loads only what is asked for."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import pluggy
import pytest

import mooring as m
from mooring import hookspecs
from mooring.errors import BrokenPlugin, PluginConflict, UnknownAuthMethod, UnknownConnectorType, UnsupportedResource
from mooring.registry import POWERS, Registry, SystemPlugins, bind
from mooring.testing import Example, ExampleSystem, Fake, PoweredExample, example, powered


def variant(base: type = PoweredExample, /, **hooks):
    """An example plugin with some attributes replaced; None removes a hook."""
    return type("Variant", (base,), hooks)()


# -- bind


def test_a_good_plugin_is_bound():
    route = bind(example)
    assert route.type == example.describe()
    assert route.canonical == example.canonical
    assert route.powers == ()
    assert route.kinds == (m.BearerToken, m.KubernetesAccess, m.RegistryLogin)


def test_powers_are_bound_and_named():
    route = bind(powered)
    assert set(route.powers) == set(POWERS)
    assert all(getattr(route, power) == getattr(powered, power) for power in POWERS)


def test_a_module_can_be_a_plugin():
    import types

    module = types.ModuleType("module")
    for hook in ("describe", "canonical", "authenticate", "verify", "discover", "issue_credentials"):
        setattr(module, hook, getattr(example, hook))
    assert bind(module).type.name == "example"


@pytest.mark.parametrize("hook", ["describe", "canonical", "authenticate", "verify", "discover", "issue_credentials"])
def test_a_required_hook_is_missing(hook):
    with pytest.raises(BrokenPlugin, match=f"'example' of acme lacks the hook '{hook}'"):
        bind(variant(Example, **{hook: None}), name="example", distribution="acme")


def test_an_unknown_hook():
    @m.hookimpl
    def discovre(self):
        pass

    with pytest.raises(BrokenPlugin, match="breaks the contract: unknown hook 'discovre'"):
        bind(variant(discovre=discovre))


def test_a_hook_of_a_newer_mooring_may_be_optional():
    @m.hookimpl(optionalhook=True)
    def teleport(self, request):
        pass

    assert bind(variant(teleport=teleport)).type.name == "example"


def test_an_argument_of_another_name():
    @m.hookimpl
    def canonical(self, resource_type, words):
        pass

    with pytest.raises(BrokenPlugin, match="'words'"):
        bind(variant(canonical=canonical))


def test_arguments_that_are_left_out_or_swapped_would_be_called_wrongly():
    @m.hookimpl
    def swapped(self, text, resource_type):
        pass

    @m.hookimpl
    def fewer(self, text):
        pass

    with pytest.raises(BrokenPlugin, match=r"takes \(text, resource_type\), it must take \(resource_type, text\)"):
        bind(variant(canonical=swapped))
    with pytest.raises(BrokenPlugin, match=r"takes \(text\), it must take \(resource_type, text\)"):
        bind(variant(canonical=fewer))


def test_arguments_may_have_defaults_and_more_may_follow():
    @m.hookimpl
    def canonical(self, resource_type, text="", strict=False):
        return text

    assert bind(variant(canonical=canonical)).canonical("t", "a") == "a"


ASYNC = ["verify", "issue_credentials", "units", "lift", "lift_all", "undo", "revoke_all"]
PLAIN = ["describe", "canonical", "authenticate", "qualify", "covers", "explain", "render", "client"]
PLAIN += ["blocking_client", "lifespan", "environment", "serve", "login", "logout", "endpoint"]


def of_colour(hook: str, colour: str):
    arguments = ", ".join(
        getattr(next(p for p in (hookspecs.Connector, *hookspecs.POWERS) if hook in vars(p)), hook).__code__.co_varnames
    )
    body = {"plain": "def f({}): pass", "async": "async def f({}): pass"}
    body |= {"generator": "def f({}): yield", "async generator": "async def f({}): yield"}
    namespace: dict = {}
    exec(body[colour].format(arguments), namespace)
    return m.hookimpl(namespace["f"])


@pytest.mark.parametrize(
    ("hook", "colour", "wanted"),
    [(hook, colour, "a coroutine function") for hook in ASYNC for colour in ("plain", "generator", "async generator")]
    + [(hook, colour, "a plain function") for hook in PLAIN for colour in ("async", "generator", "async generator")]
    + [("discover", colour, "an async generator function") for colour in ("plain", "async", "generator")],
)
def test_each_hook_has_one_colour(hook, colour, wanted):
    with pytest.raises(BrokenPlugin, match=f"its hook '{hook}' must be {wanted}"):
        bind(variant(**{hook: of_colour(hook, colour)}))


def test_the_colours_above_are_all_hooks():
    hooks = {name for one in (hookspecs.Connector, *hookspecs.POWERS) for name in vars(one)}
    assert {*ASYNC, *PLAIN, "discover"} == {name for name in hooks if not name.startswith("_")}


def test_describe_raises():
    @m.hookimpl
    def describe(self):
        raise KeyError("oops")

    with pytest.raises(BrokenPlugin, match=r"describe\(\) failed: KeyError: 'oops'"):
        bind(variant(describe=describe))


def test_describe_gives_something_else():
    @m.hookimpl
    def describe(self):
        return {"name": "example"}

    with pytest.raises(BrokenPlugin, match=r"describe\(\) must give a ConnectorType, it gave dict"):
        bind(variant(describe=describe))


class Inner(msgspec.Struct):
    token: m.Secret


class Chain(msgspec.Struct):
    token: m.Secret | None = None
    following: "Chain | None" = None


HIDING = {
    "a list": list[m.Secret],
    "a table": dict[str, m.Secret],
    "a tuple": tuple[int, m.Secret],
    "a struct": Inner,
    "an optional struct": Inner | None,
    "a list of tables of structs": list[dict[str, Inner]],
    "a struct that has itself inside": Chain,
    "a described list": Annotated[list[m.Secret], msgspec.Meta(description="tokens")],
}


def config_of(**fields):
    return type(m.Config)("Made", (m.Config,), {"__annotations__": fields, "__module__": __name__})


def with_config(config):
    """A plugin of one auth method that is configured so."""
    method = m.AuthMethod(name="keys", config=config)
    described = m.ConnectorType(name="example", auth_methods=(method,), resource_types=())
    return variant(Example, describe=m.hookimpl(lambda self: described))


@pytest.mark.parametrize("kind", HIDING.values(), ids=HIDING)
def test_a_secret_inside_of_something_else_is_refused_for_nothing_would_seal_it(kind):
    config = config_of(tokens=kind, key=m.Secret)
    said = r"auth method 'keys' has a secret inside of 'tokens', .*make each secret a field of its own"
    with pytest.raises(BrokenPlugin, match=said):
        bind(with_config(config))


def test_secrets_that_are_fields_are_none_of_these():
    noted = Annotated[m.Secret, msgspec.Meta(description="noted")]
    config = config_of(key=m.Secret, spare=m.Secret | None, noted=noted)
    assert bind(with_config(config)).type.auth_methods[0].config is config


def test_a_configuration_that_cannot_be_read():
    with pytest.raises(BrokenPlugin, match="configuration of auth method 'keys' cannot be read: NameError"):
        bind(with_config(config_of(where="Nowhere")))


@pytest.mark.parametrize(
    "parts", [{"auth_methods": None}, {"auth_methods": ({"name": "a"},)}, {"resource_types": ["r"]}]
)
def test_describe_gives_something_else_inside(parts):
    described = m.ConnectorType(**{"name": "example", "auth_methods": (), "resource_types": ()} | parts)
    with pytest.raises(BrokenPlugin, match=r"describe\(\) must name each (AuthMethod|ResourceType) in a tuple"):
        bind(variant(Example, describe=m.hookimpl(lambda self: described)))


def test_describe_gives_another_name():
    with pytest.raises(BrokenPlugin, match="'acme' of mooring-acme describes itself as 'example'"):
        bind(example, name="acme", distribution="mooring-acme")


def test_a_class_is_no_plugin():
    with pytest.raises(BrokenPlugin, match="is a class; the entry point must name an instance"):
        bind(Example, name="example", distribution="acme")


def test_unknown_names_in_a_route():
    route = bind(Fake())
    with pytest.raises(UnknownAuthMethod, match="'fake' has no auth method 'kye'; did you mean 'key'"):
        route.auth_method("kye")
    with pytest.raises(UnsupportedResource, match="'fake' does not reach 'buckte'; did you mean 'bucket'"):
        route.resource_type("buckte")


# -- the registry of given plugins


def test_given_plugins():
    registry = Registry([example, Fake()])
    assert registry.names() == ("example", "fake")
    assert registry.route("fake").type.name == "fake"
    assert [route.type.name for route in registry.routes()] == ["example", "fake"]
    assert [(one.name, one.distribution, one.error) for one in registry.plugins()] == [
        ("example", "(given)", None),
        ("fake", "(given)", None),
    ]


def test_an_unknown_type_says_what_there_is_and_what_to_install():
    with pytest.raises(UnknownConnectorType, match="no plugin serves 'aws'; known: fake; install the plugin that does"):
        Registry([Fake()]).route("aws")


def test_the_same_type_given_twice():
    with pytest.raises(PluginConflict, match="fake is claimed by"):
        Registry([Fake(), Fake()])


def test_renders_goes_to_the_plugin_that_owns_the_kind():
    token = m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True)
    registry = Registry([Fake(), powered])
    assert registry.renders(token).type.name == "example"


def test_renders_without_a_plugin_that_owns_the_kind():
    login = m.RegistryLogin(registry="r", username="u", password=m.Secret("p"), expires_at=None, narrowed=True)
    with pytest.raises(UnknownConnectorType, match="no installed plugin makes clients of 'registry-login'"):
        Registry([Fake(), powered]).renders(login)


def test_a_doubled_claim_is_refused():
    class Rival(Fake):
        @m.hookimpl
        def describe(self):
            return m.ConnectorType(name="rival", auth_methods=(), resource_types=(), credentials=(m.BearerToken,))

    token = m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True)
    with pytest.raises(PluginConflict, match="bearer-token credentials is claimed by"):
        Registry([powered, Rival()]).renders(token)


# -- installed plugins: fabricated distributions, in a process of their own

PLUGIN = """
import mooring as m
from mooring.testing import Example
import msgspec

class Plugin(Example):
    @m.hookimpl
    def describe(self):
        return msgspec.structs.replace(super().describe(), name={name!r})

connector = Plugin()
"""


class Site:
    """A folder of distributions, and Python programs that see them and nothing else that is a plugin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, entries: str, **modules: str) -> None:
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entries))
        for name, text in modules.items():
            (self.folder / f"{name}.py").write_text(text)

    def run(self, program: str):
        prelude = """
            import importlib.metadata, json, sys
            original = importlib.metadata.entry_points
            real = ("mooring-aws", "mooring-docker", "mooring-kubernetes", "mooring-sandbox")
            def ours(**names):
                return [one for one in original(**names) if one.dist.name not in real]
            importlib.metadata.entry_points = ours
            def say(what): print(json.dumps(what))
            from mooring.errors import MooringError
            from mooring.registry import Registry, SystemPlugins
            def problem(call, *args):
                try:
                    call(*args)
                except MooringError as error:
                    return [type(error).__name__, error.message]
        """
        code = textwrap.dedent(prelude) + textwrap.dedent(program)
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_only_what_is_asked_for_is_imported(site):
    for name in ("one", "two"):
        entries = f"[mooring.connectors]\n{name} = module_{name}:connector\n"
        site.install(f"mooring-{name}", entries, **{f"module_{name}": PLUGIN.format(name=name)})
    names, before, loaded, again = site.run("""
        registry = Registry()
        names = registry.names()
        before = sorted(name for name in sys.modules if name.startswith("module_"))
        route = registry.route("two")
        loaded = sorted(name for name in sys.modules if name.startswith("module_"))
        say([names, before, loaded, registry.route("two") is route])
    """)
    assert (names, before, loaded, again) == (["one", "two"], [], ["module_two"], True)


def test_broken_plugins_are_reported_and_the_others_work(site):
    site.install(
        "mooring-mixed",
        """
        [mooring.connectors]
        good = module_good:connector
        absent = module_absent:connector
        raising = module_raising:connector
        misnamed = module_good:connector
        attribute = module_good:nothing
        """,
        module_good=PLUGIN.format(name="good"),
        module_raising="raise RuntimeError('at import')",
    )
    names, works, plugins, again = site.run("""
        registry = Registry()
        plugins = {one.name: [one.distribution, one.version, one.error] for one in registry.plugins()}
        works = [route.type.name for route in registry.routes()]
        say([registry.names(), works, plugins, [problem(registry.route, "raising") for _ in range(2)]])
    """)
    assert names == ["absent", "attribute", "good", "misnamed", "raising"]
    assert works == ["good"]
    assert plugins["good"] == ["mooring-mixed", "1.2", None]
    broken = "the plugin 'raising' of mooring-mixed cannot be imported: RuntimeError: at import"
    assert plugins["raising"][2] == broken
    assert again == [["BrokenPlugin", broken]] * 2
    assert "ModuleNotFoundError" in plugins["absent"][2]
    assert "AttributeError" in plugins["attribute"][2]
    assert "'misnamed' of mooring-mixed describes itself as 'good'" in plugins["misnamed"][2]


def test_two_distributions_that_claim_one_type(site):
    for distribution in ("mooring-acme", "acme-for-mooring"):
        module = f"module_{distribution[:4]}"
        entries = f"[mooring.connectors]\nacme = {module}:connector\n"
        site.install(distribution, entries, **{module: PLUGIN.format(name="acme")})
    site.install("mooring-good", "[mooring.connectors]\ngood = good:connector", good=PLUGIN.format(name="good"))
    refused, works, imported, listed = site.run("""
        registry = Registry()
        refused = problem(registry.route, "acme")
        imported = [name for name in sys.modules if name.startswith("module_")]
        listed = [one.distribution for one in registry.plugins() if one.name == "acme"]
        say([refused, registry.route("good").type.name, imported, listed])
    """)
    assert refused == [
        "PluginConflict",
        "acme is claimed by acme-for-mooring and mooring-acme; uninstall one of them",
    ]
    assert (works, imported) == ("good", [])
    assert sorted(listed[0].split(", ")) == ["acme-for-mooring", "mooring-acme"]


def test_system_plugins_that_are_installed(site):
    good = "from mooring.testing import ExampleSystem\nplugin = ExampleSystem()"
    site.install("mooring-good", "[mooring.system]\nextra = good:plugin", good=good)
    other = "from mooring.testing import ExampleSystem\nplugin = ExampleSystem()"
    site.install("mooring-other", "[mooring.system]\nextra = other:plugin", other=other)
    bad = """
import mooring as m
class Unknown:
    @m.hookimpl
    def comands(self, cli): pass
class Coloured:
    @m.hookimpl
    async def subscribe(self, bus): pass
unknown, coloured = Unknown(), Coloured()
"""
    entries = (
        "[mooring.system]\nabsent = absent:plugin\nunknown = bad:unknown\ncoloured = bad:coloured\nkind = bad:Unknown"
    )
    site.install("mooring-bad", entries, bad=bad)
    plugins, keys = site.run("""
        system = SystemPlugins()
        plugins = {f"{one.distribution}:{one.name}": one.error for one in system.plugins}
        say([plugins, len(system.hook.master_key(url="example://k"))])
    """)
    assert plugins.pop("mooring-good:extra") is None
    assert plugins.pop("mooring-other:extra") is None
    assert keys == 2
    assert "ModuleNotFoundError" in plugins["mooring-bad:absent"]
    assert "unknown hook 'comands'" in plugins["mooring-bad:unknown"]
    assert "its hook 'subscribe' must be a plain function" in plugins["mooring-bad:coloured"]
    assert "is a class" in plugins["mooring-bad:kind"]


def test_system_plugins_that_are_given():
    system = SystemPlugins([ExampleSystem()])
    assert system.hook.master_key(url="other://") == []

    class Bad:
        @m.hookimpl
        def subscribe(self, buss):
            pass

    with pytest.raises(BrokenPlugin, match="'buss'"):
        SystemPlugins([Bad()])


def test_one_specification_for_pluggy_and_the_type_checkers():
    manager = pluggy.PluginManager("mooring")
    for specification in (hookspecs.Connector, *hookspecs.POWERS):
        manager.add_hookspecs(specification)
    manager.register(powered)
    manager.check_pending()
    assert {caller.name for caller in manager.get_hookcallers(powered)} >= set(POWERS)


def test_context_managers_are_plain_functions():
    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config, context):
        yield

    @m.hookimpl
    @contextmanager
    def blocking_client(self, request):
        yield

    assert bind(variant(authenticate=authenticate, blocking_client=blocking_client)).blocking_client
