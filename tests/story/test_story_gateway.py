"""A real gateway that we didn't write: LiteLLM's proxy (mock answers, a key, limits of its own) behind nginx with limit_req and limit_conn.

Runs where both programs are: `pip install litellm[proxy]` (extra `gateway-test`) and nginx; skipped elsewhere. nginx refuses with a bare 503 and an HTML page, LiteLLM
with a 429 that says `retry-after: 60`; the engine has to find both limits by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from story_world import World, until

SEARCH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
LITELLM, NGINX = shutil.which("litellm", path=SEARCH), shutil.which("nginx", path=SEARCH)
KEY = "sk-gateway-0123456789"

pytestmark = pytest.mark.skipif(LITELLM is None or NGINX is None, reason="needs LiteLLM's proxy (extra gateway-test) and nginx")

_PROXY = {
    "model_list": [{"model_name": "mock", "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "none", "mock_response": "It is fine."}}],
    "general_settings": {"master_key": KEY},
    "litellm_settings": {"telemetry": False},
}
_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log;
  limit_req_zone $server_name zone=requests:1m rate=10r/s;
  limit_conn_zone $server_name zone=connections:1m;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port}; server_name gateway;
    location / {{ limit_req zone=requests burst=20; limit_conn connections 100; proxy_pass http://127.0.0.1:{behind}; }}
  }}
}}
"""


def _free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _alive(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of the gateway."""
    assert LITELLM is not None
    assert NGINX is not None
    folder = tmp_path_factory.mktemp("gateway")
    port, behind = _free_port(), _free_port()
    (folder / "proxy.yaml").write_text(json.dumps(_PROXY))
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port, behind=behind))
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    log = (folder / "log").open("wb")
    started = [
        subprocess.Popen(
            [LITELLM, "--config", "proxy.yaml", "--host", "127.0.0.1", "--port", str(behind)], cwd=folder, env=environ, stdout=log, stderr=log
        ),
        subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf")], stdout=log, stderr=log),
    ]
    try:
        until(lambda: _alive(f"http://127.0.0.1:{port}/health/liveliness"), what="the gateway", every_seconds=0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        for process in started:
            process.terminate()
            process.wait(timeout=20)
        log.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_job_behind_a_real_gateway_loses_nothing_and_is_hardly_ever_refused(world: World, gateway: str, stream: bool) -> None:
    world.rows(150)
    model = {"provider": "openai-compatible", "model": "mock", "api_key_env": "GATEWAY_KEY", "price": {"input": 1, "output": 2}}
    world.job(gateway, model=model, budget={"usd": 1}, stream=stream)
    summary = world.run("run", "job.yaml", "--json", "--quiet", env={"GATEWAY_KEY": KEY}).expect(0).summary
    assert summary["rows"]["ok"] == 150
    assert [line["output"] for line in world.results()] == ["It is fine."] * 150
    assert summary["refusals"] <= 10
    assert summary["seconds"] < 25  # 150 rows at 10/s after a burst of 20 are 13 s


def test_a_wrong_key_stops_the_job_although_the_gateway_calls_it_a_400(world: World, gateway: str) -> None:
    world.rows(20)
    world.job(gateway, model={"provider": "openai-compatible", "model": "mock", "api_key_env": "GATEWAY_KEY"})
    ended = world.run("run", "job.yaml", "--json", "--quiet", env={"GATEWAY_KEY": "sk-wrong-0123456789"}).expect(4)
    assert ended.summary["rows"]["failed"] == 0
    assert "sk-wrong-0123456789" not in ended.err
