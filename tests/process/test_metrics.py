"""The metrics as a real Prometheus reads them, compared with what clients did, to the unit."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.process.gateway import ACCEPTS_ALL, PATIENCE, Client, Gateway, Make
from tests.until import until

ROOT = Path(__file__).parents[2]
POLICY = (
    ACCEPTS_ALL
    + """\
    def config(self):
        Pop3Proxy.config(self)
        self.request["NOOP"] = (POP3_REQ_POLICY, self.divide)
        self.request["DELE"] = POP3_REQ_REJECT
        self.request["LAST"] = (POP3_REQ_POLICY, self.last)

    def divide(self, command):
        return 1 // 0

    def last(self, command):
        self.response_value, self.response_param = "+OK", "0"
        return POP3_REQ_REJECT
"""
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def test_any_free_port_is_told(make: Make) -> None:
    gateway = make()
    gateway.main["metrics_listen"] = "127.0.0.1:0"
    gateway.start()
    found = re.search(r"metrics are at (http://127\.0\.0\.1:\d+/metrics)$", gateway.log, re.M)
    assert found is not None
    with urllib.request.urlopen(found[1], timeout=PATIENCE) as answer:
        assert b"pop3gw_info" in answer.read()


class Prometheus:
    """A Prometheus that reads one target, often."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        file = folder / "prometheus.yml"
        file.write_text(
            "global: {scrape_interval: 300ms, scrape_timeout: 300ms}\n"
            f"rule_files: ['{ROOT / 'docs' / 'alerts.yml'}']\n"
            f"scrape_configs: [{{job_name: pop3gw, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._log.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of a query; [] while there is no answer."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is just starting
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        except urllib.error.URLError:
            return []
        assert told["status"] == "success"
        result: list[dict[str, Any]] = told["data"]["result"]
        return result

    def sums(self, expression: str, *labels: str) -> dict[str, int]:
        """Values above zero by the values of these labels."""
        rows = self.query(f"sum by ({', '.join(labels)}) ({expression}) > 0")
        return {" ".join(row["metric"].get(label, "") for label in labels): int(row["value"][1]) for row in rows}


class Counting(Client):
    """A client that counts what it says and hears."""

    said = 0
    heard = 0

    def hear(self) -> str:
        line = super().hear()
        self.heard += len(line) + 2 if line else 0
        return line

    def ask(self, line: str) -> str:
        self.said += len(line) + 2
        return super().ask(line)


@pytest.fixture
def metrics(make: Make) -> Gateway:
    gateway = make(max_sessions=3, min_spare=2, max_spare=4)
    gateway.main["metrics_listen"] = f"127.0.0.1:{free_port()}"
    gateway.more = f"  [[b{gateway.name}]]\n  listen = 127.0.0.1:0\n  server = 127.0.0.1:{free_port()}\n"
    gateway.policy(POLICY)
    return gateway.start()


@pytest.fixture
def prometheus(metrics: Gateway, tmp_path: Path) -> Iterator[Prometheus]:
    prometheus = Prometheus(tmp_path, int(str(metrics.main["metrics_listen"]).rpartition(":")[2]))
    yield prometheus
    prometheus.close()


def text_of(gateway: Gateway) -> str:
    with urllib.request.urlopen(f"http://{gateway.main['metrics_listen']}/metrics", timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text: str = answer.read().decode()
        return text


def equal(what: str, found: Callable[[], object], wanted: object) -> None:
    """Scrapes come a little behind: wait for what must be so, or show what is instead."""
    with suppress(AssertionError):
        until(what, lambda: found() == wanted)
    assert found() == wanted, what


def test_what_prometheus_counts_is_what_clients_did(metrics: Gateway, prometheus: Prometheus) -> None:
    """Through killed workers, a reload, and workers that are replaced after three sessions."""
    gateway, name = metrics, metrics.name
    clients: list[Counting] = []

    def logged_in(number: int) -> Counting:
        client = Counting(gateway.port)
        clients.append(client)
        client.logged_in(f"user{number}")
        return client

    def whole(number: int) -> None:
        client = logged_in(number)
        assert client.ask("STAT") == "+OK 0 0"
        assert client.ask("NOOP").startswith("-ERR")
        assert client.ask("DELE 1").startswith("-ERR")
        assert client.ask("LAST") == "+OK 0"
        assert client.ask("QUIT").startswith("+OK")
        assert client.hear() == ""

    for number in range(7):
        whole(number)
    killed = [logged_in(number) for number in (7, 8)]
    for number in (7, 8):
        (pid,) = until("its title shows it", partial(gateway.workers, f"user{number} "))
        os.kill(pid, signal.SIGKILL)
    assert [client.hear() for client in killed] == ["", ""]
    running = logged_in(9)
    gateway.policy(POLICY.replace("1 // 0", "[][0]"))
    gateway.reload()
    gateway.wait_for("the configuration was reloaded")
    for number in (10, 11):
        whole(number)
    assert running.ask("NOOP").startswith("-ERR")  # under the policy that it began with
    running.quits()
    clients_of_dead = [Client(gateway.port_of(f"b{name}")) for _ in range(3)]
    assert all(client.hear().startswith("-ERR [SYS/TEMP]") for client in clients_of_dead)

    service = f'{{service="{name}"}}'
    equal(
        "sessions ended",
        lambda: prometheus.sums("pop3gw_sessions_ended_total", "service", "end", "by"),
        {f"{name} quit client": 10, f"b{name} unreachable server": 3},
    )
    assert prometheus.sums("pop3gw_sessions_total", "service") == {name: 12, f"b{name}": 3}
    assert prometheus.sums("pop3gw_sessions_lost_total", "service") == {name: 2}
    assert prometheus.sums("pop3gw_sessions_running", "service") == {}
    assert prometheus.sums("pop3gw_logins_total", "way", "outcome") == {"user ok": 12}
    assert prometheus.sums("pop3gw_requests_total", "command", "verdict") == {
        "USER relayed": 12,
        "PASS relayed": 12,
        "STAT relayed": 9,
        "NOOP refused": 10,
        "DELE refused": 9,
        "LAST answered": 9,
        "QUIT relayed": 10,
    }
    assert prometheus.sums("pop3gw_callback_errors_total", "class", "callback") == {"Office divide": 10}
    assert prometheus.sums("pop3gw_connect_failures_total", "service") == {f"b{name}": 3}
    assert prometheus.sums(f"pop3gw_octets_total{service}", "direction") == {
        "from_client": sum(client.said for client in clients),
        "to_client": sum(client.heard for client in clients),
    }
    assert prometheus.sums("pop3gw_session_seconds_count", "service") == {name: 10, f"b{name}": 3}
    assert prometheus.sums('pop3gw_session_seconds_bucket{le="+Inf"}', "service") == {name: 10, f"b{name}": 3}
    assert prometheus.sums("pop3gw_connect_seconds_count", "service") == {name: 12}
    assert prometheus.sums("pop3gw_reloads_total", "outcome") == {"ok": 1}
    ended = prometheus.sums(f"pop3gw_workers_ended_total{service}", "how")
    assert ended["signal"] == 2
    assert ended["retired"] >= 3  # 12 sessions, three a worker, and those of the old generation
    equal(
        "workers that were started are there or have ended",
        lambda: set(
            prometheus.sums(
                f"pop3gw_workers_started_total{service} - on (service) sum by (service) (pop3gw_workers_ended_total)"
                " == on (service) sum by (service) (pop3gw_workers)",
                "service",
            )
        ),
        {name},
    )


def test_every_query_of_the_dashboard_and_of_the_alerts_finds_something(
    metrics: Gateway, prometheus: Prometheus
) -> None:
    Client(metrics.port).logged_in().quits()
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 20
    until("two scrapes", lambda: prometheus.query("count_over_time(pop3gw_info[1m]) > 1"))
    for query in queries:
        filled = query.replace("$service", ".*").replace("$instance", ".*").replace("$__rate_interval", "1m")
        assert prometheus.query(filled), filled
    for metric in re.findall(r"pop3gw_\w+", (ROOT / "docs" / "alerts.yml").read_text()):
        assert prometheus.query(metric), metric


def test_the_alerts_are_rules_that_prometheus_takes() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", ROOT / "docs" / "alerts.yml"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("busy", "free", "accepting", "fires"),
    [
        (2, 398, 1, False),  # dense: both workers have a session, and room for 199 more
        (2, 0, 1, True),
        (2, 0, 0, False),  # drained: nobody waits
        (0, 0, 1, True),  # workers that can't be forked
    ],
)
def test_the_gateway_is_full_where_no_worker_has_room(
    busy: int, free: int, accepting: int, fires: bool, tmp_path: Path
) -> None:
    labels = {"instance": "mx", "job": "pop3gw", "service": "inbound"}
    values = {
        "pop3gw_workers": busy,
        "pop3gw_workers_max": 2,
        "pop3gw_free_seats": free,
        "pop3gw_accepting": accepting,
    }
    named = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    state = {"pop3gw_workers": ', state="busy"'}
    series = [
        {"series": f"{name}{{{named}{state.get(name, '')}}}", "values": f"{value}x20"} for name, value in values.items()
    ]
    alerts = [
        {
            "exp_labels": {**labels, "severity": "critical"},
            "exp_annotations": {
                "summary": "inbound: no worker has room, new clients wait",
                "description": "pop3gwctl sessions shows who is served; where the machine has room, raise max_workers.",
            },
        }
    ]
    expected = {"eval_time": "5m", "alertname": "Pop3gwFull", "exp_alerts": alerts if fires else []}
    tests = [{"interval": "30s", "input_series": series, "alert_rule_test": [expected]}]
    file = tmp_path / "full.yml"
    file.write_text(json.dumps({"rule_files": [str(ROOT / "docs" / "alerts.yml")], "tests": tests}))  # JSON is YAML
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_metrics(metrics: Gateway) -> None:
    text = text_of(metrics)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout + done.stderr == ""


def test_no_user_and_no_address_is_in_a_label(metrics: Gateway) -> None:
    client = Client(metrics.port).logged_in("mallory")
    before = text_of(metrics)
    for number in range(20):
        client.ask(f"X{number}")
        client = Client(metrics.port).logged_in(f"mallory{number}")
    after = text_of(metrics)
    assert "mallory" not in after
    assert "127.0.0.1" not in after
    names = [re.findall(r"^[^#\s][^ ]*", text, re.M) for text in (before, after)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"HEAD /metrics?x=1 HTTP/1.1\r\n\r\n", b"200"),
        (b"GET http://mx:9110/metrics HTTP/1.1\r\nHost: mx:9110\r\n\r\n", b"200"),
        (b"GET HTTP://mx?x=1 HTTP/1.1\r\nHost: mx\r\n\r\n", b"200"),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET http://mx/metrics/x HTTP/1.1\r\nHost: mx\r\n\r\n", b"404"),
        (b"HEAD /etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\0\xff\r\n\r\n", b"405"),
        (b"x" * 20_000, b"431"),
    ],
)
def test_a_request_gets_its_answer(metrics: Gateway, request_: bytes, status: bytes) -> None:
    host, _, port = str(metrics.main["metrics_listen"]).rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        connection.sendall(request_)
        answer = b""
        with suppress(ConnectionResetError):  # it was refused before all of it was read
            while data := connection.recv(65536):
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    (length,) = re.findall(rb"^Content-Length: (\d+)\r$", head, re.M)
    assert len(body) == (0 if request_.startswith(b"HEAD") else int(length))


def test_silent_connections_delay_no_scrape(metrics: Gateway) -> None:
    host, _, port = str(metrics.main["metrics_listen"]).rpartition(":")
    held = [socket.create_connection((host, int(port)), PATIENCE) for _ in range(50)]
    try:
        assert f'pop3gw_accepting{{service="{metrics.name}"}} 1.0' in text_of(metrics)
    finally:
        for connection in held:
            connection.close()


def test_only_its_own_process_imports_prometheus_client_and_only_top_imports_rich() -> None:
    program = "import sys, pop3gw.cli, pop3gw.master, pop3gw.ctl, pop3gw.control;"
    program += "print([name for name in ('rich', 'prometheus_client', 'pop3gw.metrics') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "[]\n", done.stderr


def test_an_address_in_use_is_named(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = make()
        gateway.main["metrics_listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway.launch()
        assert gateway.wait() == 78
    assert "metrics_listen: 127.0.0.1:" in gateway.log
    assert "Address already in use" in gateway.log
