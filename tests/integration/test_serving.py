"""The server as a process: its start, its end, its sockets, and many clients at once."""

import json
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import httpx
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from commands import run, run_here
from servers import Server, serving, wait_until_ready

from mlx_rerank import Reranker

BODY = {"query": "what do pandas eat?", "documents": ["Pandas eat bamboo.", "It rains."]}
WORDS = ["panda", "bamboo", "bear", "rain", "vaccine", "river", "熊猫", "竹子", "mountain", "light"]


def fails(*options: str) -> str:
    """Start a server in this process, which has to refuse; return what it says."""
    said = run_here("serve", *options, code=1).stderr
    assert said.count("mlx-rerank: ") == 1
    return said


def texts(count: int, seed: int, longest: int = 40) -> list[str]:
    random = Random(seed)
    return [" ".join(random.choices(WORDS, k=random.randint(1, longest))) for _ in range(count)]


def test_what_the_log_says(tiny: Path) -> None:
    with serving("--model", f"mini={tiny}", "--log-format", "json") as server:
        httpx.post(f"{server.url}/rerank", json=BODY)
        assert server.stop() == 0
        rows = [json.loads(line) for line in server.log]
    assert [row["message"] for row in rows if row.get("route") != "/ready"] == [
        f"listening on {server.url}", "loaded", "ready", "request", "stopping", "stopped",
    ]  # fmt: skip
    (row,) = [row for row in rows if row.get("route") == "/rerank"]
    assert (row["status"], row["model"], row["pairs"], row["level"]) == (200, "mini", 2, "INFO")
    assert row["tokens"] > 10
    assert not {"Pandas", "pandas", "rains"} & set(json.dumps(rows).replace('"', " ").split())


def test_interrupted(tiny: Path) -> None:
    with serving("--model", str(tiny)) as server:
        assert server.stop(signal.SIGINT) == 130
        assert not [line for line in server.log if "Traceback" in line]


def test_interrupted_twice_ends_at_once() -> None:
    with serving() as server, ThreadPoolExecutor(1) as client:
        body = {"query": "panda", "documents": [" ".join(texts(6, seed)) for seed in range(900)]}
        asked = client.submit(httpx.post, f"{server.url}/rerank", json=body, timeout=60)
        time.sleep(1)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        begin = time.monotonic()
        assert server.stop(signal.SIGINT) == 130
        assert time.monotonic() - begin < 5
        assert isinstance(asked.exception(), httpx.HTTPError)
        assert not [line for line in server.log if "Traceback" in line or "Error" in line]


def test_terminated_as_soon_as_it_listens() -> None:
    with serving(ready=False) as server:
        assert server.stop() == 0


def test_a_warm_up_that_fails_ends_the_server(tmp_path: Path) -> None:
    tensors = random_tensors(TINY)
    tensors["classifier.out_proj.bias"][:] = np.nan
    broken = write_checkpoint(tmp_path / "broken", tensors=tensors)
    said = run("serve", "--port", "0", "--model", str(broken), "--warmup", code=1).stderr
    assert said.count("mlx-rerank: ") == 1
    assert "NaN or infinity" in said


def test_interrupted_while_loading() -> None:
    with serving(ready=False) as server:
        assert server.stop(signal.SIGINT) == 130


def test_what_cannot_be_served(tmp_path: Path) -> None:
    assert "'nothing' is not a directory" in fails("--port", "0", "--model", "nothing")
    assert "is not a number of bytes" in fails("--port", "0", "--max-body", "9" * 400)
    assert "models of different names" in fails("--port", "0", "--model", "mini", "--model", "mini")
    assert "'lots' is not a number of bytes, such as 4G" in fails("--port", "0", "--memory-limit", "lots")
    assert "higher --memory-limit" in fails("--port", "0", "--memory-limit", "1M")
    assert "is not an origin, such as https://" in fails("--port", "0", "--allow-origin", "*")
    assert "cannot be read" in fails("--port", "0", "--api-key-file", str(tmp_path / "none"))
    (tmp_path / "empty").write_text("\n \n")
    assert "holds no key" in fails("--port", "0", "--api-key-file", str(tmp_path / "empty"))
    assert "max_length 9999 exceeds this model's limit of 512" in fails("--port", "0", "--max-length", "9999")
    assert "cannot listen on no.such.host.invalid" in fails("--host", "no.such.host.invalid")


def test_an_incomplete_install() -> None:
    code = "import runpy, sys; sys.modules['fastapi'] = None; sys.argv = ['mlx-rerank', 'serve']; "
    command = [sys.executable, "-c", code + "runpy.run_module('mlx_rerank', run_name='__main__')"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert "the server cannot be imported" in result.stderr
    assert result.stderr.endswith("pip install mlx-rerank\n")


def test_a_port_that_is_taken(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    words = f"cannot listen on 127.0.0.1 port {port}: another program is using it; choose another --port"
    assert words in fails("--port", port)


def test_answers_do_not_wait_for_packets_to_fill(server: Server) -> None:
    def seconds() -> float:
        begin = time.perf_counter()
        for _ in range(20):
            client.get(f"{server.url}/health")
        return time.perf_counter() - begin

    with httpx.Client() as client:
        assert min(seconds() for _ in range(5)) < 20 * 0.03  # with Nagle's algorithm it is 0.04 each


def test_a_unix_socket(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))  # left by a server that was killed
    with serving("--model", str(tiny), "--unix-socket", str(path), port=False) as server:
        assert server.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            while client.get("/ready").status_code != 200:
                time.sleep(0.05)
            assert client.post("/rerank", json=BODY).status_code == 200
        assert "another program is using it" in fails("--unix-socket", str(path))
        path.unlink()
        with serving("--model", str(tiny), "--unix-socket", str(path), port=False, ready=False) as successor:
            assert server.stop() == 0
            assert path.exists()  # it is the other's
            assert successor.stop() == 0
    assert not path.exists()
    path.write_text("precious")
    assert "a file of that name exists" in fails("--unix-socket", str(path))
    assert path.read_text() == "precious"


def test_addresses_of_the_new_kind(tiny: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving("--model", str(tiny), "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.post(f"{server.url}/rerank", json=BODY).status_code == 200


def test_a_warning_where_others_may_come() -> None:
    with serving("--host", "0.0.0.0", environment={"MLX_RERANK_API_KEY": ""}, ready=False) as server:
        assert any("0.0.0.0 may be reached by others, and no key is needed" in line for line in server.log)


def test_a_key_from_the_environment(tiny: Path) -> None:
    with serving("--model", str(tiny), environment={"MLX_RERANK_API_KEY": "sesame"}) as server:
        assert httpx.post(f"{server.url}/rerank", json=BODY).status_code == 401
        answer = httpx.post(f"{server.url}/rerank", json=BODY, headers={"authorization": "Bearer sesame"})
        assert answer.status_code == 200


def test_many_clients_get_the_scores_of_one(server: Server, mini: Reranker) -> None:
    def ask(seed: int) -> None:
        documents = texts(Random(seed).choice([1, 3, 10, 20]), seed, longest=12)
        with httpx.Client(timeout=120) as client:
            answer = client.post(f"{server.url}/rerank", json={"query": WORDS[seed % 10], "documents": documents})
        found = {row["index"]: row["relevance_score"] for row in answer.json()["results"]}
        expected = mini.score([(WORDS[seed % 10], document) for document in documents])
        assert [found[i] for i in range(len(documents))] == pytest.approx(expected.tolist(), abs=1e-5)

    with ThreadPoolExecutor(16) as clients:
        list(clients.map(ask, range(16)))


@pytest.fixture
def hangups() -> Iterator[None]:
    """Have a server started now heed SIGHUP, also where these tests were started by nohup, which ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["terminated", "hung up"])
def test_terminated_under_load(tiny: Path, number: signal.Signals) -> None:
    """Every request is answered in full, or was never accepted."""
    outcomes: Counter[object] = Counter()
    stop = threading.Event()

    def keep_asking(seed: int) -> None:
        with httpx.Client(timeout=120) as client:
            while not stop.is_set():
                try:
                    answer = client.post(url, json={"query": "panda", "documents": texts(20, seed)})
                except httpx.ConnectError:
                    outcomes["no connection"] += 1
                    return
                except httpx.HTTPError as error:
                    outcomes[repr(error)] += 1
                    return
                whole = answer.status_code != 200 or len(answer.json()["results"]) == 20
                outcomes[answer.status_code if whole else "cut"] += 1

    with serving("--model", str(tiny)) as server, ThreadPoolExecutor(16) as clients:
        url = f"{server.url}/rerank"
        asking = [clients.submit(keep_asking, seed) for seed in range(16)]
        deadline = time.monotonic() + 30
        while outcomes[200] < 16 and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            code = server.stop(number)
        finally:
            stop.set()
        for future in asking:
            future.result()
    assert code == 0
    assert outcomes[200] >= 16
    assert set(outcomes) <= {200, 503, "no connection"}, outcomes
    assert outcomes["no connection"] == 16


def test_clients_that_go_away_cost_nothing(server: Server) -> None:
    metrics = lambda: dict(  # noqa: E731
        line.rsplit(" ", 1) for line in httpx.get(f"{server.url}/metrics").text.splitlines() if line[0] != "#"
    )
    before = float(metrics()['mlx_rerank_computed_tokens_total{model="mini"}'])
    documents = [" ".join(texts(6, seed)) for seed in range(400)]  # some 20 s of work
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/rerank", json={"query": "panda", "documents": documents}, timeout=1)
    begin = time.monotonic()
    assert httpx.post(f"{server.url}/rerank", json=BODY, timeout=60).status_code == 200
    assert time.monotonic() - begin < 5
    time.sleep(0.5)
    computed = float(metrics()['mlx_rerank_computed_tokens_total{model="mini"}']) - before
    time.sleep(0.5)
    assert float(metrics()['mlx_rerank_computed_tokens_total{model="mini"}']) - before == computed  # it has stopped
    assert metrics()['mlx_rerank_waiting_pairs{model="mini"}'] == "0.0"
    assert metrics()['mlx_rerank_requests_total{route="/rerank",status="499"}'] != "0.0"


def test_an_idle_model_comes_back() -> None:
    with serving("--keep-alive", "0") as server:
        loaded = lambda: httpx.get(f"{server.url}/v1/models").json()["data"][0]["loaded"]  # noqa: E731
        while loaded():
            time.sleep(0.1)
        assert httpx.post(f"{server.url}/rerank", json=BODY).json()["results"][0]["index"] == 0
        wait_until_ready(server.url)
