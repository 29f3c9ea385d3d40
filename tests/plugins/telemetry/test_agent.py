"""`mooring agent` with the endpoint, as a process."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from mooring_sandbox.cloud import Sandbox
from mooring_sandbox.testing import sandbox

__all__ = ["sandbox"]

RUN = (sys.executable, "-m", "mooring")
DATA = ("--resource-type", "s3-bucket", "--resource-id", "s3://team-models")


def variables(sandbox: Sandbox, home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOORING_"))}
    return kept | sandbox.environment() | {"MOORING_HOME": str(home)} | more


def test_the_agent_says_where_it_serves_metrics_and_serves_them(sandbox: Sandbox, tmp_path: Path) -> None:
    environment = variables(sandbox, tmp_path)
    register = (*RUN, "connector", "register", "data", "--type", "aws", "--auto-configure")
    subprocess.run(register, env=environment, check=True, capture_output=True)
    asked = environment | {"MOORING_METRICS_PORT": "0"}
    with subprocess.Popen(
        (*RUN, "agent", "data", *DATA), env=asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stderr is not None
        said = [agent.stderr.readline(), agent.stderr.readline()]
        url = re.fullmatch(r"Serving metrics at (http://127\.0\.0\.1:\d+/metrics)\.\n", said[0])
        assert url, said
        answer = httpx.get(url[1])
        agent.send_signal(signal.SIGTERM)

    assert agent.returncode == 0
    assert said[1] == "Serving until Ctrl-C.\n"
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"mooring_cache_entries", "mooring_cache_hits"} <= names


def test_a_port_that_is_none_is_told_in_one_line_and_the_agent_serves_on(sandbox: Sandbox, tmp_path: Path) -> None:
    environment = variables(sandbox, tmp_path)
    register = (*RUN, "connector", "register", "data", "--type", "aws", "--auto-configure")
    subprocess.run(register, env=environment, check=True, capture_output=True)
    asked = environment | {"MOORING_METRICS_PORT": "http"}
    with subprocess.Popen(
        (*RUN, "agent", "data", *DATA), env=asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stderr is not None
        said = [agent.stderr.readline(), agent.stderr.readline()]
        agent.send_signal(signal.SIGTERM)

    assert said == [
        "Metrics are not served: MOORING_METRICS_PORT is no port; give a number up to 65535, such as 9464\n",
        "Serving until Ctrl-C.\n",
    ]
