"""Credentials as text, and kubectl that lives off them: the real one, against the real cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import mooring as m
from mooring_kubernetes import connector

ENDS = datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = m.KubernetesAccess(
    server="https://k8s.example.org",
    cluster="arn:aws:eks:eu-west-1:123456789012:cluster/c",
    certificate_authority="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    token=m.Secret("canary-token"),
    namespace="apps",
    expires_at=ENDS,
    narrowed=True,
)
PAIR = m.KubernetesAccess(
    server="https://k8s.example.org",
    cluster="c",
    client_certificate="PEM",
    client_key=m.Secret("canary-key"),
    proxy_url="http://proxy:3128",
    tls_server_name="name",
    expires_at=None,
    narrowed=False,
)
COMMAND = ("/usr/bin/mooring", "issue", "prod")


@pytest.fixture
def kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("no kubectl on the PATH; install it (apt-get install kubernetes-client)")
    return found


def rendered(credentials: m.Credentials, form: str, **variables: str) -> str:
    return connector.render(m.RenderRequest(credentials=credentials, format=form, variables=variables))


def test_what_an_exec_plugin_answers() -> None:
    answer = json.loads(rendered(TOKEN, "exec-credential"))
    assert answer == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "canary-token", "expirationTimestamp": "2100-01-02T03:03:05Z"},
    }
    info = json.dumps({"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "spec": {}})
    older = json.loads(rendered(PAIR, "exec-credential", KUBERNETES_EXEC_INFO=info))
    assert older["apiVersion"].endswith("v1beta1")
    assert older["status"] == {"clientCertificateData": "PEM", "clientKeyData": "canary-key"}


@pytest.mark.parametrize(
    "info", ["{", "[]", "{}", '{"apiVersion": "client.authentication.k8s.io/v1alpha1"}', "[" * 9999]
)
def test_a_version_that_there_is_not(info: str) -> None:
    with pytest.raises(m.InvalidConfig, match="KUBERNETES_EXEC_INFO"):
        rendered(TOKEN, "exec-credential", KUBERNETES_EXEC_INFO=info)


def test_kubeconfigs_are_whole() -> None:
    text = rendered(TOKEN, "kubeconfig")
    assert text.startswith("# ends at 2100-01-02T03:04:05Z\n")
    document = yaml.safe_load(text)
    assert document["current-context"] == TOKEN.cluster
    assert document["contexts"][0]["context"]["namespace"] == "apps"
    other = yaml.safe_load(rendered(PAIR, "kubeconfig"))
    assert other["clusters"][0]["cluster"] == {
        "server": "https://k8s.example.org", "tls-server-name": "name", "proxy-url": "http://proxy:3128",
    }  # fmt: skip
    (file,) = connector.environment(TOKEN).files
    assert (file.variable, file.content.reveal()) == ("KUBECONFIG", text)


def test_another_format_or_kind() -> None:
    with pytest.raises(m.InvalidConfig, match="exec-credential"):
        rendered(TOKEN, "yaml")
    with pytest.raises(m.UnsupportedResource):
        rendered(m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True), "kubeconfig")


def logged_in(file: Path | None, credentials: m.KubernetesAccess = TOKEN, **more: Any) -> m.LoginChange:
    fields: dict[str, Any] = {"connector": "prod", "resource_id": None, "command": COMMAND, "file": file} | more
    request = m.LoginRequest(
        credentials=credentials, resource_type="kubernetes-cluster", access="read", folder=Path("unused"), **fields
    )
    return connector.login(request)


def logged_out(file: Path | None, connector_name: str = "prod", **more: Any) -> m.LoginChange:
    fields: dict[str, Any] = {"resource_type": None, "resource_id": None} | more
    return connector.logout(m.LogoutRequest(connector=connector_name, folder=Path("unused"), file=file, **fields))


MINE = """\
# my clusters
apiVersion: v1
kind: Config
preferences: {}
clusters:
- cluster:
    server: "https://home.example.org"   # behind the router
  name: home
users:
# never share
- name: ann
  user:
    token: abc
contexts:
- context: {cluster: home, user: ann}
  name: home
current-context: home
"""
SECTION = re.compile(r"(?<=:\n)((?:#.*\n)?- (?:.*\n  )*.*\n)")
INDENTED = SECTION.sub(lambda found: textwrap.indent(found[1], "  "), MINE)
assert "  - cluster" in INDENTED
FLOW = json.dumps(yaml.safe_load(MINE)) + "\n"


@pytest.mark.parametrize("text", [MINE, INDENTED])
def test_login_keeps_everything_and_logout_removes_exactly_its_own(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    file.chmod(0o640)
    change = logged_in(file)
    assert change.entries == ("mooring-prod",)
    assert change.notes == ("use it with: kubectl --context mooring-prod",)
    after = file.read_text()
    assert all(line in after.splitlines() for line in text.splitlines())
    assert "canary" not in after
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    backup = Path(str(change.backup))
    assert (backup.read_text(), stat.S_IMODE(backup.stat().st_mode)) == (text, 0o600)
    document = yaml.safe_load(after)
    assert document["current-context"] == "home"
    assert document["users"][1]["user"]["exec"] == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "/usr/bin/mooring",
        "args": ["issue", "prod", "--format", "exec-credential"],
        "interactiveMode": "Never",
        "provideClusterInfo": False,
    }
    again = logged_in(file)
    assert (again.entries, again.backup) == (("mooring-prod",), None)
    assert (file.read_text(), backup.read_text()) == (after, text)
    assert logged_out(file, "other").entries == ()
    assert file.read_text() == after
    assert logged_out(file).entries == ("mooring-prod",)
    assert file.read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "config.before-mooring"]


MOVED = """\
users:
# first
- name: mooring-prod
  user:
    extensions:
    - name: mooring
      extension:
        connector: prod  # of ours
# second

- name: ann
  user: {}   # nothing
contexts:
# third
- name: mooring-prod
  context:
    user: mooring-prod
    extensions:
    - name: mooring
      extension:
        connector: prod
# fourth
current-context: home
clusters: []
"""


def test_comments_after_an_entry_outlive_it(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(MINE)
    logged_in(file)
    text = file.read_text()
    for key in ("users", "contexts", "current-context"):
        text = text.replace(f"\n{key}:", f"\n# of {key}\n\n{key}:")
    file.write_text(text)
    logged_in(file)
    assert file.read_text() == text
    logged_in(file, msgspec.structs.replace(TOKEN, server="https://moved.example.org"))
    assert file.read_text() == text.replace(TOKEN.server, "https://moved.example.org")
    logged_out(file)
    assert [line for line in file.read_text().splitlines() if "# of" in line] == [
        "# of users", "# of contexts", "# of current-context",
    ]  # fmt: skip
    file.write_text(MOVED)
    logged_out(file)
    assert file.read_text() == (
        "users:\n# first\n# second\n\n- name: ann\n  user: {}   # nothing\ncontexts: []\n# third\n# fourth\n"
        "current-context: home\nclusters: []\n"
    )


def test_login_where_there_is_no_file_makes_it_the_current_context(machine: Path) -> None:
    change = logged_in(None)
    file = machine / ".kube" / "config"
    assert (change.file, change.backup) == (str(file), None)
    use = "use it with: kubectl --context mooring-prod"
    assert change.notes == (f"{use}; it is the current context now, as there was none",)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert yaml.safe_load(file.read_text())["current-context"] == "mooring-prod"
    assert logged_out(file).entries == ("mooring-prod",)
    assert yaml.safe_load(file.read_text())["current-context"] == ""
    assert logged_out(machine / "nowhere").entries == ()


def test_the_entry_carries_where_the_connectors_are(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = machine / "config"
    monkeypatch.chdir(machine)
    monkeypatch.setenv("MOORING_HOME", "there")
    assert logged_in(file).variables == ("MOORING_HOME",)
    (user,) = yaml.safe_load(file.read_text())["users"]
    assert user["user"]["exec"]["env"] == [{"name": "MOORING_HOME", "value": str(machine / "there")}]
    monkeypatch.delenv("MOORING_HOME")
    assert logged_in(file).variables == ()
    assert "env" not in yaml.safe_load(file.read_text())["users"][0]["user"]["exec"]


def test_login_chooses_among_the_files_of_kubeconfig(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{machine}/one{os.pathsep}{machine}/two")
    assert logged_in(None).file == f"{machine}/two"
    (machine / "one").write_text(MINE)
    assert logged_in(None).file == f"{machine}/one"


def test_login_leaves_the_current_context_and_the_entries_of_the_other_files(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{machine}/one{os.pathsep}{machine}/two")
    (machine / "one").write_text("# mine\n")
    (machine / "two").write_text(MINE)
    assert logged_in(None).notes == ("use it with: kubectl --context mooring-prod",)
    document = yaml.safe_load((machine / "one").read_text())
    assert (document["kind"], document.get("current-context")) == ("Config", None)
    with pytest.raises(m.InvalidConfig, match="another entry 'home'"):
        logged_in(None, name="home")
    assert (machine / "two").read_text() == MINE
    (machine / "two").write_text("a: [")
    (note,) = logged_in(None).notes
    assert note.endswith("; it is the current context now, as there was none")
    assert logged_in(None).notes == ()


def test_logout_looks_through_all_files_of_kubeconfig(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{machine}/one{os.pathsep}{machine}/two")
    logged_in(None)
    (machine / "one").write_text(MINE)
    change = logged_out(None)
    assert (change.file, change.entries) == (f"{machine}/two", ("mooring-prod",))
    logged_in(None)
    logged_in(machine / "two")
    before = (machine / "two").read_text()
    (machine / "two").write_text("a: [")
    with pytest.raises(m.InvalidConfig, match="two is no kubeconfig"):
        logged_out(None)
    assert "mooring-prod" in (machine / "one").read_text()
    (machine / "two").write_text(before)
    change = logged_out(None)
    assert (change.file, change.entries) == (f"{machine}/one, {machine}/two", ("mooring-prod",))
    assert (machine / "one").read_text() == MINE
    change = logged_out(None)
    assert (change.file, change.entries) == (f"{machine}/one, {machine}/two", ())


def test_the_ends_of_lines_and_the_mark_of_windows_stay(tmp_path: Path) -> None:
    file = tmp_path / "config"
    text = ("\ufeff" + MINE.replace("\n", "\r\n")).encode()
    file.write_bytes(text)
    logged_in(file)
    after = file.read_bytes()
    assert after.startswith("\ufeff#".encode())
    assert after.count(b"\n") == after.count(b"\r\n")
    logged_out(file)
    assert file.read_bytes() == text


@pytest.mark.parametrize("name", ["yes", "on", "n", "123", "0b1", "1e3", "1:20"])
def test_a_name_that_could_be_read_as_something_else_is_quoted(tmp_path: Path, name: str) -> None:
    file = tmp_path / "config"
    logged_in(file, name=name)
    document = yaml.safe_load(file.read_text())
    assert (document["current-context"], document["contexts"][0]["context"]["user"]) == (name, name)
    assert f'"{name}"' in file.read_text() or f"'{name}'" in file.read_text()
    assert logged_out(file).entries == (name,)


def test_a_current_context_that_is_no_text_is_let_be(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("current-context: [a]\n")
    logged_in(file)
    assert logged_out(file).entries == ("mooring-prod",)
    assert yaml.safe_load(file.read_text())["current-context"] == ["a"]


def test_what_would_change_more_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a defect of the YAML library would."""
    from mooring_kubernetes import edit, style

    file = tmp_path / "config"
    file.write_text(MINE)
    monkeypatch.setattr(edit, "written", lambda *given: style.written(*given).replace("abc", "abd"))
    refused(file, "without changing more of it")


def test_several_resources_of_one_connector(tmp_path: Path) -> None:
    file = tmp_path / "config"
    for name in ("eu-west-1/a", "eu-west-1/b"):
        assert logged_in(file, resource_id=name).entries == (f"mooring-prod-{name}",)
    assert logged_out(file, resource_id="eu-west-1/a").entries == ("mooring-prod-eu-west-1/a",)
    assert logged_in(file, connector="next", name="mine").entries == ("mine",)
    assert logged_out(file).entries == ("mooring-prod-eu-west-1/b",)
    assert [one["name"] for one in yaml.safe_load(file.read_text())["contexts"]] == ["mine"]


def test_a_kubeconfig_in_json(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(FLOW)
    logged_in(file)
    assert len(yaml.safe_load(file.read_text())["users"]) == 2
    logged_out(file)
    assert yaml.safe_load(file.read_text()) == yaml.safe_load(MINE)


@pytest.mark.parametrize("indent", [None, 2, 4])
@pytest.mark.parametrize("end", ["", "\n"])
def test_json_stays_json_and_indented(tmp_path: Path, indent: int | None, end: str) -> None:
    file = tmp_path / "config"
    text = json.dumps(yaml.safe_load(MINE), indent=indent) + end
    file.write_text(text)
    logged_in(file)
    after = file.read_text()
    assert len(json.loads(after)["users"]) == 2
    assert after == json.dumps(json.loads(after), indent=indent) + end
    logged_out(file)
    assert file.read_text() == text


def test_the_backup_is_of_what_was_there_before_mooring(tmp_path: Path) -> None:
    file, backup = tmp_path / "config", tmp_path / "config.before-mooring"
    file.write_text(MINE)
    assert logged_in(file).backup == str(backup)
    assert logged_in(file, connector="other").backup is None
    assert backup.read_text() == MINE
    assert logged_out(file).backup is None
    assert logged_out(file, "other").backup is None
    assert backup.read_text() == MINE
    file.write_text(INDENTED)
    assert logged_in(file).backup == str(backup)
    assert backup.read_text() == INDENTED
    backup.unlink()
    between = file.read_text()
    assert logged_out(file).backup == str(backup)  # the only one is better than none
    assert backup.read_text() == between


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(MINE)
    (tmp_path / "config").symlink_to(tmp_path / "real")
    logged_in(tmp_path / "config")
    assert (tmp_path / "config").is_symlink()
    assert "mooring-prod" in (tmp_path / "real").read_text()


def refused(file: Path, said: str, **more: Any) -> None:
    before = file.read_bytes()
    with pytest.raises(m.InvalidConfig, match=said) as caught:
        logged_in(file, **more)
    assert "\n" not in caught.value.message
    assert "canary" not in caught.value.message
    assert file.read_bytes() == before
    left = {path.name for path in file.parent.iterdir()} - {f"{file.name}.before-mooring", f"{file.name}.lock"}
    assert left == {file.name}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [canary", r"no kubeconfig \(line"),
        ("- canary", "no kubeconfig"),
        ("kind: Pod", "no kubeconfig"),
        ("a: 1\n---\nb: 2\n", "no kubeconfig"),
        ("clusters: canary", "broken list of clusters"),
        ("users:\n- canary", "broken list of users"),
        ("a: 1\na: 2\n", "no kubeconfig"),
        ("a: !!bool canary", "no kubeconfig"),
        ("a: !!int ''", "no kubeconfig"),
        ("a: !!timestamp canary", "no kubeconfig"),
        ("a: !canary b", "no kubeconfig"),
        ("? [canary]\n: b", "no kubeconfig"),
        ("a:\n\t- canary", "no kubeconfig"),
        ("a: &a [*a]", "no kubeconfig"),
        (
            "a0: &a0 {a: b}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1},' * 9}]}}\n" for n in range(1, 9)),
            "no kubeconfig",
        ),
        ("%YAML 1.1\n---\na: 1" + ":1" * 300_000, "no kubeconfig"),
        ("\0", "no kubeconfig"),
        ("null", "no kubeconfig"),
        ("# " + "x" * 2_000_000, "longer than 1 MiB"),
        (MINE.replace("name: home\nusers", "name: mooring-prod\nusers"), "another entry 'mooring-prod'"),
    ],
)
def test_a_file_that_cannot_be_changed_stays_as_it_is(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    refused(file, said)


def test_a_read_only_file_and_one_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(MINE)
    file.chmod(0o400)
    refused(file, "read-only")
    refused(file, "name is malformed", name="a b")
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("sub", "pipe"):  # a device such as /dev/null would be replaced by a file
        with pytest.raises(m.InvalidConfig, match="no plain file"):
            logged_in(tmp_path / name)
    for path in (tmp_path / ("x" * 300), tmp_path / "\0"):
        with pytest.raises(m.InvalidConfig, match="cannot be changed"):
            logged_in(path)
        assert logged_out(path).entries == ()
    with pytest.raises(m.InvalidConfig, match="of nobody"):
        logged_in(Path("~nobody-there/config"))
    with pytest.raises(m.InvalidConfig, match="cannot be changed"):
        logged_in(file / "below")


def test_another_process_at_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mooring_kubernetes import edit

    file = tmp_path / "config"
    file.write_text(MINE)
    (tmp_path / "config.lock").touch()
    monkeypatch.setattr(edit, "LOCK_SECONDS", 0.2)
    refused(file, "another process holds")
    (tmp_path / "config.lock").unlink()

    def change(document: Any) -> list[str]:
        document["current-context"] = "x"
        file.write_text(MINE + "# of somebody else\n")
        return ["x"]

    with pytest.raises(m.InvalidConfig, match="was changed by another process"):
        edit.edit(file, change)
    assert file.read_text() == MINE + "# of somebody else\n"
    assert not (tmp_path / "config.lock").exists()


def test_many_logins_at_once_lose_none(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(MINE)
    threads = [threading.Thread(target=logged_in, args=(file,), kwargs={"connector": f"c{n}"}) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {one["name"] for one in yaml.safe_load(file.read_text())["contexts"]}
    assert names == {"home"} | {f"mooring-c{n}" for n in range(8)}


def test_kubectl_lives_off_what_login_wrote(
    kubectl: str, cluster: Any, namespace: str, tmp_path: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = m.KubernetesAccess(
        server=cluster.url, cluster="lab", certificate_authority=cluster.ca, namespace=namespace,
        token=m.Secret(cluster.token(namespace, "bot")), expires_at=datetime.now(UTC) + timedelta(hours=1),
        narrowed=True,
    )  # fmt: skip
    (tmp_path / "answer").write_text(rendered(access, "exec-credential"))
    (tmp_path / "mooring.py").write_text(
        f"import os, sys; assert sys.argv[1:] == ['prod', '--format', 'exec-credential']; "
        f"assert os.environ['MOORING_HOME'] == {str(machine)!r}; "
        f"print(open({str(tmp_path / 'answer')!r}).read())"
    )
    file = tmp_path / "config"
    file.write_text(MINE)
    with monkeypatch.context() as environment:
        environment.setenv("MOORING_HOME", str(machine))
        logged_in(file, access, command=(sys.executable, str(tmp_path / "mooring.py"), "prod"))

    def run(*arguments: str, context: str = "mooring-prod", config: Path = file) -> subprocess.CompletedProcess[str]:
        command = [kubectl, "--kubeconfig", str(config), "--context", context, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    shown = run("get", "configmap", "settings", "-o", "jsonpath={.data.colour}")
    assert (shown.returncode, shown.stdout) == (0, "blue"), shown.stderr
    denied = run("get", "secrets")
    assert denied.returncode != 0
    assert "forbidden" in denied.stderr.lower()

    assert run("config", "set-context", "mooring-prod", "--namespace=default").returncode == 0
    assert logged_out(file).entries == ("mooring-prod",)  # kubectl has kept our mark
    assert [one["name"] for one in yaml.safe_load(file.read_text())["users"]] == ["ann"]

    (tmp_path / "whole").write_text(rendered(access, "kubeconfig"))
    shown = run("get", "configmap", "settings", "-o", "name", context="lab", config=tmp_path / "whole")
    assert (shown.returncode, shown.stdout.strip()) == (0, "configmap/settings"), shown.stderr
