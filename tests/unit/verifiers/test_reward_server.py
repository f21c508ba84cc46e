"""The reward server client against a real HTTP server on this machine that fails in every way (demand.md
R10)."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mgs_trl.verifiers import RewardServerVerifier, VerifierError
from mgs_trl.verifiers.circuit import Replicas

FAST = {"backoff": 0.001, "timeout": 5.0}


class Server:
    """Answers each request by `behave(number, body) -> (status, bytes)`; keeps what it was asked."""

    def __init__(self, behave):
        outer, self.asked, self.active, self.most_active = self, [], 0, 0
        self.lock, self.connections = threading.Lock(), set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append((self.path, body))
                    outer.connections.add(self.client_address)
                    number = len(outer.asked) - 1
                    outer.active += 1
                    outer.most_active = max(outer.most_active, outer.active)
                status, answer = behave(number, body)
                with outer.lock:
                    outer.active -= 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve():
    servers = []

    def start(behave):
        servers.append(Server(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def length_score(_number, body):
    """A vLLM classify answer whose score is the length of the assistant's message."""
    score = float(len(body["messages"][-1]["content"]))
    return 200, json.dumps({"data": [{"index": 0, "probs": [score], "num_classes": 1}]}).encode()


def ask(verifier, completions=("aa", "bbbb"), **columns):
    return verifier(["q"] * len(completions), list(completions), **columns)


def test_scores_in_order_with_thinking_stripped(serve):
    server = serve(length_score)
    verifier = RewardServerVerifier(url=server.url + "/", model="rm", **FAST)
    completions = ["a" * n for n in range(1, 20)] + ["<think>long</think>zz"]
    assert ask(verifier, completions) == [*map(float, range(1, 20)), 2.0]
    path, body = server.asked[0]
    assert path == "/classify"
    assert body["model"] == "rm"
    assert body["use_activation"] is False
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("api", "path", "answer"),
    [
        ("vllm_classify", "/classify", {"data": [{"probs": [0.5]}]}),
        ("vllm_pooling", "/pooling", {"data": [{"data": [0.5]}]}),
        ("vllm_pooling", "/pooling", {"data": [{"data": [[0.5]]}]}),
        ("tei", "/predict", [{"score": 0.5, "label": "x"}]),
        ("tei", "/predict", [[{"score": 0.5, "label": "x"}]]),
        ("json", "/", {"score": 0.5}),
        ("json", "/", {"rewards": [0.5]}),
    ],
)
def test_every_api(serve, api, path, answer):
    server = serve(lambda number, body: (200, json.dumps(answer).encode()))
    assert ask(RewardServerVerifier(url=server.url, api=api, **FAST), ["a"]) == [0.5]
    assert server.asked[0][0] in (path, "")


def test_the_requests_fit_vllms_own_schema():
    protocol = pytest.importorskip("vllm.entrypoints.pooling.classify.protocol")
    pooling = pytest.importorskip("vllm.entrypoints.pooling.pooling.protocol")
    from mgs_trl.verifiers.reward_api import APIS

    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    for name, schema in (
        ("vllm_classify", protocol.ClassificationChatRequest),
        ("vllm_pooling", pooling.PoolingChatRequest),
    ):
        request = schema(**APIS[name].request(messages, "rm"))
        assert request.add_generation_prompt is False
        assert request.to_pooling_params().use_activation is False
    answer = protocol.ClassificationData(index=0, label=None, probs=[1.5], num_classes=1)
    response = protocol.ClassificationResponse(model="rm", data=[answer], usage={"prompt_tokens": 1, "total_tokens": 1})
    assert APIS["vllm_classify"].score(response.model_dump()) == 1.5


@pytest.mark.parametrize(
    "bad",
    [
        (500, b"oops"),
        (503, b""),
        (429, b""),
        (200, b"<html>"),
        (200, b"{}"),
        (200, b'{"data": []}'),
        (200, b"[" * 5000),
    ],
)
def test_r10_a_failure_that_passes_is_retried(serve, bad):
    server = serve(lambda number, body: bad if number < 2 else length_score(number, body))
    verifier = RewardServerVerifier(url=server.url, concurrency=1, **FAST)
    assert ask(verifier) == [2.0, 4.0]
    assert len(server.asked) == 4


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (400, 1)])
def test_r10_a_failure_that_stays_names_server_and_sample(serve, status, tries):
    server = serve(lambda number, body: (status, b"because"))
    verifier = RewardServerVerifier("chat", url=server.url, retries=2, **FAST)
    with pytest.raises(VerifierError, match=rf"chat/reward_server.*sample 0.*{server.url}: status {status}"):
        ask(verifier, ["a"])
    assert len(server.asked) == tries


def test_r10_by_option_a_failure_scores_none_and_is_counted(serve):
    server = serve(
        lambda number, body: length_score(number, body) if body["messages"][-1]["content"] == "aa" else (500, b"")
    )
    counts = {}
    verifier = RewardServerVerifier(url=server.url, retries=1, on_error="none", **FAST)
    assert ask(verifier, log_metric=counts.__setitem__) == [2.0, None]
    assert counts["verifier/reward_server/errors"] == 1.0


def test_r10_server_down_fails_fast_and_then_at_once(serve):
    server = serve(length_score)
    url = server.url
    server.close()
    verifier = RewardServerVerifier(url=url, retries=2, breaker_failures=3, on_error="none", concurrency=1, **FAST)
    assert ask(verifier, ["a"] * 50) == [None] * 50
    down = RewardServerVerifier(url=url, retries=5, breaker_failures=2, **FAST)
    with pytest.raises(VerifierError, match=r"circuit open.*ConnectError"):
        ask(down, ["a"])


@pytest.mark.parametrize("status", [503, 429])
def test_an_outage_of_all_requests_in_flight_is_ridden_out_with_the_defaults(serve, status):
    server = serve(lambda number, body: (status, b"") if number < 30 else length_score(number, body))
    assert ask(RewardServerVerifier(url=server.url), ["aaa"] * 16) == [3.0] * 16
    assert len(server.asked) == 30 + 16


def test_too_many_requests_never_open_the_breaker(serve):
    server = serve(lambda number, body: (429, b"") if number < 6 else length_score(number, body))
    verifier = RewardServerVerifier(url=server.url, retries=6, breaker_failures=2, concurrency=1, **FAST)
    assert ask(verifier, ["aa"]) == [2.0]


def test_failures_of_requests_in_flight_together_count_once():
    now = [0.0]
    (replica,) = (replicas := Replicas(["a"], limit=3, pause=10.0, spacing=0.5, clock=lambda: now[0])).replicas
    counted = []
    for seconds in (0.0, 0.4, 0.6, 0.7, 1.2):  # 0.4 is too near to 0.0, and 0.7 to 0.6
        now[0] = seconds
        wave = [replicas.acquire() for _ in range(4)]
        for request in wave:
            assert request is not None
            replicas.release(request, ok=False)
        counted.append(replica.failures)
    assert counted == [1, 1, 2, 2, 3]
    assert replicas.acquire() is None


def test_r10_a_slow_server_times_out(serve):
    def slow(number, body):
        time.sleep(2.0 if number == 0 else 0.0)
        return length_score(number, body)

    server = serve(slow)
    verifier = RewardServerVerifier(url=server.url, timeout=0.3, backoff=0.001, concurrency=1)
    assert ask(verifier, ["aa"]) == [2.0]
    assert len(server.asked) == 2


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_r10_nan_from_a_server_is_an_error_or_none(serve, number):
    server = serve(lambda *_: (200, b'{"data": [{"probs": [' + number + b"]}]}"))
    with pytest.raises(VerifierError, match=r"returned -?(nan|inf)"):
        ask(RewardServerVerifier(url=server.url, **FAST), ["a"])
    assert ask(RewardServerVerifier(url=server.url, on_error="none", **FAST), ["a"]) == [None]


def test_a_number_that_no_float_holds_is_no_score(serve):
    server = serve(lambda *_: (200, b'{"data": [{"probs": [' + b"9" * 400 + b"]}]}"))
    with pytest.raises(VerifierError, match=r"sample 0: .*expected a score that a float holds"):
        ask(RewardServerVerifier(url=server.url, retries=0, **FAST), ["a"])
    assert ask(RewardServerVerifier(url=server.url, retries=0, on_error="none", **FAST), ["a"]) == [None]


def test_two_classes_or_a_score_per_token_are_refused(serve):
    server = serve(lambda *_: (200, b'{"data": [{"probs": [0.1, 0.9]}]}'))
    with pytest.raises(VerifierError, match="expected one score"):
        ask(RewardServerVerifier(url=server.url, retries=0, **FAST), ["a"])


def test_replicas_share_the_load_and_replace_each_other(serve):
    good = [serve(length_score), serve(length_score)]
    bad = serve(lambda *_: (500, b""))
    verifier = RewardServerVerifier(url=[bad.url, *(server.url for server in good)], breaker_failures=2, **FAST)
    completions = ["a" * (1 + n % 7) for n in range(120)]
    assert ask(verifier, completions) == [float(len(text)) for text in completions]
    assert min(len(server.asked) for server in good) > 20
    assert len(bad.asked) <= 2 + verifier.concurrency


def test_concurrency_is_limited_and_connections_are_reused(serve):
    def short_pause(number, body):
        time.sleep(0.01)
        return length_score(number, body)

    server = serve(short_pause)
    verifier = RewardServerVerifier(url=server.url, concurrency=3, **FAST)
    ask(verifier, ["a"] * 40)
    ask(verifier, ["a"] * 40)
    assert 1 < server.most_active <= 3
    assert len(server.connections) <= 3


def test_an_open_breaker_lets_one_request_try_after_its_pause():
    now = [0.0]
    replicas = Replicas(["a"], limit=2, pause=10.0, clock=lambda: now[0])
    for _ in range(2):
        replica = replicas.acquire()
        assert replica is not None
        replicas.release(replica, ok=False)
    assert replicas.acquire() is None
    now[0] = 10.0
    trial = replicas.acquire()
    assert trial is not None
    assert replicas.acquire() is None  # only one at a time may try
    replicas.release(trial, ok=True)
    assert replicas.acquire() is not None


def test_rows_of_other_domains_are_not_sent(serve):
    server = serve(length_score)
    verifier = RewardServerVerifier("chat", url=server.url, **FAST)
    assert ask(verifier, domain=["math", "chat"]) == [None, 4.0]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": []}, "url"),
        ({"url": "http://"}, r"url must be an http\(s\) address or a list of them, got 'http://'"),
        ({"url": ["http://h:1", "http://h:port"]}, "url must be"),
        ({"url": "http://h:99999"}, "url must be"),
        ({"url": "http://[::1"}, "url must be"),
        ({"api": "rest"}, "api"),
        ({"timeout": 0}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"retries": 1.5}, "retries must be a whole number, got 1.5"),
        ({"concurrency": True}, "concurrency must be a whole number, got True"),
        ({"backoff": float("nan")}, "backoff must be zero or more, got nan"),
        ({"headers": {"X-Key": 12345}}, r"headers must map names to texts, got \{'X-Key': 12345\}"),
        ({"headers": ["X-Key: 1"]}, "headers must map names to texts"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        RewardServerVerifier(**{"url": "http://h", **options})
