"""A learner behind HTTP: what is acknowledged is learned once, and nothing else is done, whoever asks for what."""

import csv
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
testclient = pytest.importorskip("starlette.testclient")

from onward import saving  # noqa: E402
from onward.cli import main  # noqa: E402
from onward.errors import OnwardError  # noqa: E402
from onward.lab.folder import RunFolder  # noqa: E402
from onward.rows import learn  # noqa: E402
from onward.rows.learn import as_json  # noqa: E402
from onward.rows.options import Learn  # noqa: E402
from onward.rows.serve import app  # noqa: E402
from onward.rows.serve import service as services  # noqa: E402
from onward.rows.serve.app import App, listen  # noqa: E402
from onward.rows.serve.journal import Journal, Place, Request  # noqa: E402
from onward.rows.serve.options import Serve  # noqa: E402
from onward.rows.serve.service import Full, Service  # noqa: E402

pytestmark = [pytest.mark.usefixtures("compile_fast"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
TOKEN = "known-to-few"
SMALL = {"target": ("y",), "units": 2, "experts": ("network",), "every": 20, "checkpoint_seconds": 1e9}


def rows_of(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"x": round(float(rng.normal()), 4), "y": round(float(10 + np.sin(i / 3) + 0.1 * rng.normal()), 4)}
        for i in range(count)
    ]


@pytest.fixture
def served(tmp_path):
    """Starts services of a folder, and ends them."""
    open_ones = []

    def start(name="run", **fields):
        options = Learn(**(SMALL | fields))
        folder = RunFolder(tmp_path / name, "learn")
        folder.__enter__()
        if not (tmp_path / name / "config.json").exists():
            folder.begin(as_json(options), source="-")
        service = Service(options, as_json(options), folder, lambda text: None)
        service.start()
        open_ones.append((service, folder))
        return service

    def stop(service):
        service.stop()
        at = next(i for i, (each, _) in enumerate(open_ones) if each is service)
        open_ones.pop(at)[1].__exit__(None, None, None)

    start.stop = stop
    yield start
    for service, _ in [*open_ones]:
        stop(service)


def client_of(service, **fields):
    return testclient.TestClient(App(service, Serve(**fields)).routes(), base_url="http://localhost")


def post(client, path, content, **headers):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post(path, content=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


# What is learned


def test_rows_are_learned_as_a_file_of_them_is(served, tmp_path, monkeypatch):
    """Against `onward learn` of the same rows: the table is equal to the byte."""
    monkeypatch.setattr("onward.rows.report.write_report", lambda folder: folder / "report.html")
    rows, service = rows_of(60), served(alarm=0.01)
    client = client_of(service)
    said = []
    for start in (0, 1, 2, 5, 30, 40):
        stop = {0: 1, 1: 2, 2: 5, 5: 30, 30: 40, 40: 60}[start]
        answer = post(client, "/rows", rows[start:stop] if stop - start > 1 else rows[start])
        assert answer.status_code == 200
        said += answer.json()["rows"]
    assert [each["row"] for each in said] == list(range(1, 61))
    served.stop(service)
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # What a service has not: the first rows of a file say what its columns are.
    monkeypatch.setattr(learn, "judge", lambda session, source: None)
    learn.learn(Learn(**(SMALL | {"alarm": 0.01})), str(source), tmp_path / "file")
    table = (tmp_path / "file" / "predictions.csv").read_bytes()
    mine = (tmp_path / "run" / "predictions.csv").read_bytes()
    assert table.startswith(mine)
    assert table.removeprefix(mine).count(b"\n") == 1  # the forecast after the last row
    with open(tmp_path / "file" / "predictions.csv") as file:
        lines = list(csv.DictReader(file))
    for answer, line in zip(said, lines[1:], strict=True):
        assert answer["targets"]["y"]["prediction"] == pytest.approx(float(line["prediction"]), rel=1e-5)
        assert answer["targets"]["y"]["low"] == pytest.approx(float(line["low"]), rel=1e-5)


def test_what_was_acknowledged_is_learned_once_after_a_kill(served, tmp_path):
    rows, service = rows_of(40), served()
    client = client_of(service)
    for row in rows[:20]:
        post(client, "/rows", row)
    for row in rows[20:33]:
        post(client, "/rows", row)
    table = (tmp_path / "run" / "predictions.csv").read_bytes()
    # Killed: nothing is kept, and a request that was being written was cut off.
    journal = max((tmp_path / "run" / "journal").iterdir())
    service._keep = lambda: None
    served.stop(service)
    with open(journal, "ab") as file:
        file.write(b'["",[{"x":1.0,"y":')
    again = served()
    assert again.row == 33
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == table
    post(client_of(again), "/rows", rows[33:])
    whole = served("other")
    post(client_of(whole), "/rows", rows)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == (tmp_path / "other" / "predictions.csv").read_bytes()


def test_a_request_that_comes_again_is_not_learned_again(served):
    rows, service = rows_of(6), served()
    client = client_of(service)
    first = post(client, "/rows", rows[:3], Idempotency_Key="a").json()["rows"]
    again = post(client, "/rows", rows[:3], Idempotency_Key="a").json()["rows"]
    assert again == [{"row": each["row"], "again": True} for each in first]
    assert service.row == 3
    served.stop(service)
    other = served()
    assert post(client_of(other), "/rows", rows[:3], Idempotency_Key="a").json()["rows"] == again
    assert other.row == 3
    # Two of them at once are one.
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: post(client_of(other), "/rows", rows[3:], Idempotency_Key="b").json(), range(2)))
    assert sorted("again" in each["rows"][0] for each in both) == [False, True]
    assert other.row == 6


@pytest.mark.parametrize(
    "keys", [None, {"a": None}, {"a": [0]}, {"a": [0, 1, 2]}, {"a": [-1, 3]}, {"a": ["0", 3]}, ["a"]]
)
@pytest.mark.parametrize("name", ["keys", "again"])
def test_a_checkpoint_whose_requests_cannot_be_true_is_refused(name, keys, served, tmp_path):
    service = served()
    post(client_of(service), "/rows", rows_of(3), Idempotency_Key="a")
    served.stop(service)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        meta, arrays = saving.load_arrays(path)
        meta = {key: value for key, value in meta.items() if key not in ("format", "onward")}
        saving.save_arrays(path, arrays, meta | {name: keys})
    with pytest.raises(OnwardError, match=r"no checkpoint in .* can be read"):
        served()


@pytest.mark.parametrize("fields", [{}, {"by": ("x",), "experts": ("network",)}])
def test_who_only_asks_changes_nothing(fields, served, tmp_path):
    rows, service = rows_of(20), served(**fields)
    client = client_of(service)
    post(client, "/rows", [{**row, "x": "abc"[i % 3]} if fields else row for i, row in enumerate(rows)])

    def kept():
        with services.as_usual():
            arrays, _ = service.session.learner.save() if not fields else ({}, None)
        files = {p.name: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.suffix != ".sqlite"}
        records = {n: r.tobytes() for n, r in service.session.shards.shard.entities.all()} if fields else {}
        return {name: a.tobytes() for name, a in arrays.items()}, files, records, dict(service.names), service.row

    before = kept()
    now = post(client, "/ask", b"").json()["rows"]
    assert now[-1]["row"] == 20
    then = post(client, "/ask", [{"x": "a" if fields else 0.5, "y": 11.0, "new": 3.0, "kind": "z"}]).json()["rows"]
    assert then[0]["row"] == 21
    assert then[0]["targets"]["y"]["came"] == 11.0
    assert (
        then == post(client, "/ask", [{"x": "a" if fields else 0.5, "y": 11.0, "new": 3.0, "kind": "z"}]).json()["rows"]
    )
    assert kept() == before
    learned = post(client, "/rows", [{"x": "a" if fields else 0.5, "y": 11.0}]).json()["rows"]
    assert learned[0]["row"] == 21


def test_requests_of_many_are_each_answered_their_own(served):
    service = served()
    client = client_of(service)
    post(client, "/rows", rows_of(5))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: post(client, "/rows", {"x": 0.0, "y": 10 + i / 100}).json()["rows"], range(60)))
    assert sorted(each[0]["row"] for each in found) == list(range(6, 66))
    for i, (each,) in enumerate(found):
        assert each["targets"]["y"]["came"] == 10 + i / 100


def test_a_row_that_cannot_be_learned_is_refused_and_the_others_are_learned(served, monkeypatch):
    """It is found out after the journal has it: the journal is cut back, and all goes on."""
    service = served()
    client = client_of(service)
    post(client, "/rows", rows_of(5))
    right = services.session_of

    def session_of(*args):
        session = right(*args)
        take = session.take

        def refusing(block, **more):
            if "poison" in block.cells and any(block.cells["poison"]):
                raise OnwardError("row of poison")
            take(block, **more)

        session.take = refusing
        return session

    monkeypatch.setattr(services, "session_of", session_of)
    taken = service.session.take
    monkeypatch.setattr(
        service.session,
        "take",
        lambda block, **more: (
            (_ for _ in ()).throw(OnwardError("row of poison")) if "poison" in block.cells else taken(block, **more)
        ),
    )
    with ThreadPoolExecutor(3) as pool:
        sent = [{"x": 0.0, "y": 10.0}, {"x": 0.0, "y": 10.1, "poison": 1}, {"x": 0.0, "y": 10.2}]
        found = list(pool.map(lambda row: post(client, "/rows", row), sent))
    assert [each.status_code for each in found] == [200, 409, 200], [each.text for each in found]
    assert found[1].json()["error"] == "row of poison. Nothing of this request was learned"
    assert service.row == 7
    assert not service.broken


def test_old_files_of_the_journal_go(served, tmp_path):
    service = served(checkpoint_seconds=0.0)
    client = client_of(service)
    for row in rows_of(30):
        post(client, "/rows", row)
    deadline = time.monotonic() + 20
    while len(list((tmp_path / "run" / "journal").iterdir())) > 3 and time.monotonic() < deadline:
        post(client, "/rows", {"x": 0.0, "y": 10.0})
    assert len(list((tmp_path / "run" / "journal").iterdir())) <= 3


# What is refused


def test_no_route_answers_without_the_token(served, monkeypatch):
    monkeypatch.setenv("ONWARD_TOKEN", TOKEN)
    service = served()
    client = client_of(service)
    calls = [("POST", "/rows"), ("POST", "/ask"), ("GET", "/state"), ("GET", "/metrics")]
    for method, path in calls:
        for value in (None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}2", "Bearer \xff"):
            headers = {} if value is None else {"Authorization": value.encode("latin-1")}
            answer = client.request(method, path, headers=headers, content=b'{"x": 1, "y": 2}')
            assert answer.status_code == 401, (method, path, value)
            assert TOKEN not in answer.text
    assert service.row == 0
    page = client.get("/")
    assert page.status_code == 200
    assert TOKEN not in page.text
    assert client.get("/state", headers={"Authorization": f"Bearer {TOKEN}"}).json()["rows"] == 0


HOSTILE = [
    (b"", 400, "the body has no rows"),
    (b"{", 400, "not JSON"),
    (b"[1, 2]", 400, "row 1 of the list is not a JSON object"),
    (b"7", 400, "no JSON object"),
    (b"[]", 400, "the body has no rows"),
    (b'{"y": 1}\n{"y"', 400, "line 2 of the body is not JSON"),
    (b'{"y": 1, "y": 2}', 400, "the key 'y' comes twice"),
    (b'\xff\xfe{"y": 1}', 400, "not UTF-8"),
    (b"[" * 100_000, 400, "within one another"),
    (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "within one another"),
    (b"x" * 3_000_000, 413, "larger than 1,000,000 bytes"),
    (json.dumps({f"k{i}": i for i in range(30_000)}).encode(), 400, "keys, and"),
]


@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_bodies_that_are_no_rows(case, served):
    body, status, text = HOSTILE[case]
    service = served()
    answer = post(client_of(service, most_bytes=1_000_000), "/rows", body)
    assert answer.status_code == status
    assert text in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert service.row == 0


def test_no_path_leads_out_of_it(served, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    service = served()
    client = client_of(service)
    before = set(tmp_path.rglob("*"))
    paths = ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/journal/00000001.jsonl", "/config.json"]
    paths += ["/checkpoints", "/static/../../secret.txt", "//etc/passwd", "/rows/../state/x", "/docs", "/openapi.json"]
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            answer = client.request(method, path)
            assert answer.status_code in (404, 405), (method, path)
            assert "secret" not in answer.text
    for method, path in [("GET", "/rows"), ("DELETE", "/rows"), ("POST", "/"), ("PUT", "/state"), ("POST", "/metrics")]:
        assert client.request(method, path).status_code == 405
    assert set(tmp_path.rglob("*")) == before
    assert client.get("/state", headers={"Host": "evil.example"}).status_code == 400  # DNS that was bound anew


def test_names_and_texts_are_data(served, tmp_path):
    """Columns and categories that would be code elsewhere stand where they are."""
    service = served()
    client = client_of(service)
    nasty = {
        "y": 1.0,
        "<script>alert(1)</script>": 2.0,
        "../../x": "=cmd()",
        "'; DROP TABLE states; --": "\u202e",
        "__proto__": 1,
    }
    for _ in range(3):
        assert post(client, "/rows", nasty).status_code == 200
    assert post(client, "/rows", {"y": 2.0, "z": float("inf")}).status_code == 200
    assert not (tmp_path / "x").exists()
    page = client.get("/")
    assert "alert(1)" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.text.count(policy.split("'nonce-")[1].split("'")[0]) == 2
    assert "innerHTML" not in page.text


def test_too_many_wait(served, monkeypatch):
    service = served()
    monkeypatch.setattr(service._queue, "put_nowait", lambda asked: (_ for _ in ()).throw(services.queue.Full()))
    answer = post(client_of(service), "/rows", {"y": 1})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    with pytest.raises(Full):
        service.ask(Request("", []), learn=False)


def test_one_address_may_send_so_many_requests(served):
    client = client_of(served(), most_a_second=2.0)
    found = [client.get("/state").status_code for _ in range(6)]
    assert found[:2] == [200, 200]
    assert found[-1] == 429


def test_a_disk_that_is_full_acknowledges_nothing(served, monkeypatch):
    rows, service = rows_of(10), served()
    client = client_of(service)
    post(client, "/rows", rows[:5])
    sync = os.fsync

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onward.rows.serve.journal.os.fsync", full)
    answer = post(client, "/rows", rows[5])
    assert answer.status_code == 507
    assert "No space left on device; nothing of this request was learned" in answer.json()["error"]
    assert post(client, "/ask", b"").status_code == 200
    monkeypatch.setattr("onward.rows.serve.journal.os.fsync", sync)
    assert post(client, "/rows", rows[5]).json()["rows"][0]["row"] == 6


def test_a_journal_is_read_from_where_it_was_left(tmp_path):
    journal = Journal(tmp_path)
    journal.append([Request("a", [{"y": 1}]), Request("", [{"y": 2}, {"y": "\ud800"}])])
    place = journal.place
    journal.append([Request("b", [{"y": 3}])])
    journal.turn()
    journal.append([Request("c", [{"y": 4}])])
    assert [each.key for each in journal.read(Place(1, 0))] == ["a", "", "b", "c"]
    assert [each.key for each in journal.read(place)] == ["b", "c"]
    journal.cut(Place(2, 0))
    assert [each.key for each in journal.read(place)] == ["b"]
    journal.forget(Place(2, 0))
    with pytest.raises(saving.Unreadable, match=r"00000001\.jsonl is missing"):
        list(journal.read(place))
    journal.close()
    (tmp_path / "00000002.jsonl").write_bytes(b"[1, 2, 3]\n")
    damaged = Journal(tmp_path)
    with pytest.raises(saving.Unreadable, match="line 1 of what is left: it is damaged"):
        list(damaged.read(Place(2, 0)))
    damaged.close()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"host": "0.0.0.0"}, "put a token into a file"),
        ({"port": 70_000}, "--port must be from 0 to 65535"),
        ({"most_bytes": 0}, "--most-bytes must be at least 1"),
        ({"most_connections": 0}, "--most-connections must be at least 1"),
        ({"most_a_second": -1.0}, "--most-a-second must be 0 or more"),
        ({"token_file": "nowhere"}, "--token-file nowhere: No such file"),
    ],
)
def test_options_that_do_not_fit(fields, match, monkeypatch):
    monkeypatch.delenv("ONWARD_TOKEN", raising=False)
    with pytest.raises(OnwardError, match=match):
        App(None, Serve(**fields)) if "token_file" in fields else Serve(**fields).check()


def test_what_is_missing_is_told(monkeypatch):
    monkeypatch.setattr("onward.rows.serve.options.find_spec", lambda name: None)
    with pytest.raises(OnwardError, match=r'onward serve needs starlette: pip install "onward\[serve\]"'):
        Serve().check()


def test_a_port_and_a_folder_in_use_are_told(served, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OnwardError, match=rf"--port {port}: Address already in use; choose another --port"):
            listen(Serve(port=port))
    served()
    assert main(["serve", str(tmp_path / "run"), "--target", "y", "--port", "0"]) == 1
    assert "is in use by another onward" in capsys.readouterr().err
    assert main(["serve"]) == 1
    assert "serve what?" in capsys.readouterr().err


# A whole command


class Command:
    """`onward serve` in a process of its own."""

    def __init__(self, folder, *words):
        command = [sys.executable, "-m", "onward", "serve", str(folder), "--port", "0", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.url = ""
        for line in self.process.stderr:
            self.lines.append(line)
            if " answers at " in line:
                self.url = line.split()[-1]
                break
        self.rest = threading.Thread(target=lambda: self.lines.extend(self.process.stderr))
        self.rest.start()

    def end(self):
        """By SIGKILL, where it has not ended."""
        self.process.kill()
        self.process.wait()
        self.rest.join()
        self.process.stderr.close()

    def post(self, path, rows, **headers):
        request = urllib.request.Request(self.url + path, json.dumps(rows).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["rows"]


@pytest.fixture
def listening(served, monkeypatch):
    """A service that listens, in this process: its address, and its server."""
    made = []

    class Server(app.uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            made.append(self)

    monkeypatch.setattr(app.uvicorn, "Server", Server)
    began, threads = threading.Event(), []

    def start(**fields):
        place = listen(Serve(port=0, **fields))
        where = place.getsockname()
        words = served(), Serve(port=0, **fields), place, lambda url: began.set()
        threads.append(threading.Thread(target=app.run, args=words))
        threads[-1].start()
        assert began.wait(30)
        return where

    yield start
    for server in made:
        server.should_exit = True
    for thread in threads:
        thread.join(60)


def state_at(where):
    """The status of GET /state."""
    try:
        with urllib.request.urlopen("http://{}:{}/state".format(*where), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("said", [b"", b"POST /rows HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"])
def test_who_says_nothing_is_not_waited_for(said, listening, monkeypatch):
    """A thousand connections that hold the places of others: those are told to come later, and soon answered."""
    monkeypatch.setattr(app, "PATIENCE", 3.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = 1000 if hard >= 4096 or hard == resource.RLIM_INFINITY else 300
    monkeypatch.setattr(app, "WAITING", 2048)  # of a queue of the system's
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096 if many == 1000 else soft), hard))
    where = listening(most_connections=250)
    assert state_at(where) == 200
    try:
        idle = []
        for _ in range(many):
            idle.append(socket.create_connection(where[:2], timeout=10))
            idle[-1].sendall(said)
        assert state_at(where) == 503
        end = time.monotonic() + 30
        while (found := state_at(where)) != 200 and time.monotonic() < end:
            time.sleep(0.2)
        assert found == 200
        with suppress(ConnectionResetError):
            assert idle[0].recv(100) == b""
    finally:
        for each in idle:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.interfaces
def test_a_command_that_is_killed_and_one_that_is_ended(tmp_path):
    words = ("--target", "y", "--units", "2", "--experts", "network", "--checkpoint-seconds", "0.2")
    rows, sure = rows_of(120), []
    command = Command(tmp_path / "run", *words)
    try:
        for i, row in enumerate(rows):
            if i in (30, 77):
                command.end()
                command = Command(tmp_path / "run")
            sure += command.post("/rows", row, **{"Idempotency-Key": f"k{i}"})
        # Somebody who goes away in the middle of an answer, and somebody who says nothing.
        host, port = command.url.removeprefix("http://").split(":")
        body = json.dumps({"x": 0.0, "y": 10.0}).encode()
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(b"POST /rows HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        with socket.create_connection((host, int(port))):
            assert command.post("/ask", [])
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(timeout=60) in (0, -signal.SIGTERM)
    finally:
        command.end()
    assert [each["row"] for each in sure] == list(range(1, 121))
    assert any("go on with: onward serve" in line for line in command.lines)
    with open(tmp_path / "run" / "predictions.csv") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == list(range(1, 122))
    assert [float(line["target"]) for line in lines[:120]] == [row["y"] for row in rows]
