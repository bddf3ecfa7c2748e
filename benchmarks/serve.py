"""`onward serve` under load: many clients, one of them never waits for another, and a kill in the middle.

    python benchmarks/serve.py [--seconds N] [--clients N] [--rows N]

A service in a process of its own, and `--clients` connections that send rows of five columns, `--rows` a request, each
the next as soon as it is answered. First so for a quarter of the time: the rows a second are its capacity. Then at half
of that, evenly: how long an answer takes. In the middle of this the service is killed (SIGKILL) and started again;
clients try again until they are answered, with the key that their request had. In the end the table must hold every
acknowledged row once, with the target that was sent. (That it is the table of `onward learn`, a test says.)
"""

import argparse
import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = 4
WORDS = ["--target", "y", "--checkpoint-seconds", "5"]


class Service:
    """The process, started again where it was killed."""

    def __init__(self, folder: Path, port: int):
        self.folder, self.port, self.cpu = folder, port, 0.0
        self.start()

    def start(self) -> None:
        """Until it listens."""
        words = ["serve", str(self.folder), "--port", str(self.port), *(WORDS if not self.folder.exists() else [])]
        self.process = subprocess.Popen([sys.executable, "-m", "onward", *words], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if " answers at " in line:
                return
        raise SystemExit("the service did not start")

    def used(self) -> float:
        """CPU seconds of the process."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, number: signal.Signals) -> None:
        """By a signal."""
        self.cpu += self.used()
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Client:
    """One connection, and what came of its requests."""

    def __init__(self, port: int, number: int, size: int):
        self.port, self.number, self.size = port, number, size
        self.rng, self.sent = np.random.default_rng(number), 0
        self.rows: dict[int, dict[str, float]] = {}
        self.took: list[float] = []
        self.pipe: Any = None

    def request(self) -> list[dict[str, float]]:
        """Rows of this client: a sine with noise, of which a column knows a part."""
        out = []
        for _ in range(self.size):
            x = self.rng.normal(size=COLUMNS)
            y = 10 + np.sin(self.sent / 8 + self.number) + 0.3 * x[0]
            out.append({**{f"x{i}": round(float(v), 4) for i, v in enumerate(x)}, "y": round(float(y), 4)})
        return out

    async def send(self) -> None:
        """A request, again and again until it is acknowledged."""
        rows, began = self.request(), time.monotonic()
        body = json.dumps(rows).encode()
        head = (
            f"POST /rows HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            f"Idempotency-Key: {self.number}-{self.sent}\r\n\r\n"
        ).encode()
        while True:
            try:
                if self.pipe is None:
                    self.pipe = await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = self.pipe
                writer.write(head + body)
                await writer.drain()
                answer = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(v) for v in answer.lower().split(b"content-length:")[1:2] for v in [v.split(b"\r")[0]]
                )
                content = await reader.readexactly(length)
                if b" 200 " in answer.split(b"\r\n")[0]:
                    break
            except (OSError, asyncio.IncompleteReadError):
                self.pipe = None
            await asyncio.sleep(0.05)
        self.took.append(time.monotonic() - began)
        for row, said in zip(rows, json.loads(content)["rows"], strict=True):
            assert said["row"] not in self.rows
            self.rows[said["row"]] = row
        self.sent += 1


async def load(clients: list[Client], seconds: float, rate: float | None) -> float:
    """Requests for so long: each as soon as the one before is answered, or so many a second in all; rows a second."""
    began, before = time.monotonic(), sum(client.sent for client in clients)

    async def one(i: int, client: Client) -> None:
        due = began + (i / rate if rate else 0)
        while (now := time.monotonic()) < began + seconds:
            if rate and now < due:
                await asyncio.sleep(due - now)
            await client.send()
            due += len(clients) / rate if rate else 0

    await asyncio.gather(*(one(i, client) for i, client in enumerate(clients)))
    sent = sum(client.sent for client in clients) - before
    return sent * clients[0].size / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--port", type=int, default=8765)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where) / "run"
        service = Service(folder, asked.port)
        clients = [Client(asked.port, i, asked.rows) for i in range(asked.clients)]
        asyncio.run(_reconnected(clients, 3.0, None))  # columns are met, programs compiled
        before = service.used()
        capacity = asyncio.run(_reconnected(clients, asked.seconds / 4, None))
        cpu = (service.used() - before) / (asked.seconds / 4)
        print(f"capacity: {capacity:,.0f} rows a second, {capacity / cpu:,.0f} a CPU second of the service", flush=True)
        rate = capacity / 2 / asked.rows
        for part in ("before", "after"):
            for client in clients:
                client.took = []
            reached = asyncio.run(_reconnected(clients, asked.seconds * 3 / 8, rate))
            took = np.sort(np.concatenate([client.took for client in clients])) * 1e3
            p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
            print(f"{part} the kill, {reached:,.0f} rows a second: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)
            if part == "before":
                asyncio.run(_killed(clients, service, rate))
        service.end(signal.SIGTERM)
        known: dict[int, dict[str, float]] = {}
        for client in clients:
            assert not known.keys() & client.rows.keys()
            known |= client.rows
        with open(folder / "predictions.csv", newline="") as file:
            lines = [line for line in csv.DictReader(file) if line["target"]]
        assert [int(line["row"]) for line in lines] == list(range(1, len(lines) + 1)), "a row is missing, or twice"
        assert {*known} <= {*range(1, len(lines) + 1)}, "an acknowledged row is not in the table"
        assert all(float(lines[n - 1]["target"]) == row["y"] for n, row in known.items()), "a row is another's"
        print(
            f"{len(known):,} rows acknowledged, each in the table once; {len(lines) - len(known)} more were not told of"
        )


async def _reconnected(clients: list[Client], seconds: float, rate: float | None) -> float:
    for client in clients:
        client.pipe = None
    return await load(clients, seconds, rate)


async def _killed(clients: list[Client], service: Service, rate: float) -> None:
    """The service is killed while all send, and started again."""
    for client in clients:
        client.pipe = None
    sending = asyncio.create_task(load(clients, 20.0, rate))
    await asyncio.sleep(2.0)
    began = time.monotonic()
    await asyncio.to_thread(service.end, signal.SIGKILL)
    await asyncio.to_thread(service.start)
    print(f"killed, and answering again after {time.monotonic() - began:.1f} s", flush=True)
    await sending


if __name__ == "__main__":
    main()
