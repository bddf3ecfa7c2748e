"""Rows from an MQTT broker, learned once each, though learner and subscriber are killed in between.

    apt-get install mosquitto mosquitto-clients
    python examples/mqtt.py

What runs is what a person would type:

    mosquitto_sub -t meters/7 -q 1 -c -i onward >> meter.jsonl
    tail -n +1 -F meter.jsonl | onward learn - --target load --offset seq --out runs/meter

A subscriber tells the broker that it has a message before anybody has learned from it. So the messages go into a file,
which is the memory between the two: the learner begins it anew after every restart, and `--offset` passes over the rows
that it knows. The broker keeps what is published while the subscriber is away (-c), and may send a message twice (-q 1).
"""

import csv
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 300
LEARN = [sys.executable, "-m", "onward", "learn", "-"]
FIELDS = ["--target", "load", "--offset", "seq", "--experts", "network", "--checkpoint-seconds", "0.5"]


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


class Learner:
    """`tail -n +1 -F FILE | onward learn -`."""

    def __init__(self, file: Path, out: Path):
        words = (
            ["--resume", str(out)] if list(out.glob("checkpoints/*.npz")) else [*FIELDS, "--replace", "--out", str(out)]
        )
        self.tail = subprocess.Popen(
            ["tail", "-n", "+1", "-F", str(file)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.learn = subprocess.Popen(
            [*LEARN, *words], stdin=self.tail.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def end(self, number: signal.Signals) -> None:
        self.learn.send_signal(number)
        self.learn.wait()
        self.tail.kill()
        self.tail.wait()


def main() -> None:
    if shutil.which("mosquitto") is None or shutil.which("mosquitto_sub") is None:
        sys.exit("mqtt.py runs against a broker: apt-get install mosquitto mosquitto-clients")
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as where:
        port, file, out = free_port(), Path(where) / "meter.jsonl", Path(where) / "runs" / "meter"
        (Path(where) / "broker.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
        broker = subprocess.Popen(["mosquitto", "-c", f"{where}/broker.conf"], stderr=subprocess.DEVNULL)
        time.sleep(1)
        topic = ["-p", str(port), "-t", "meters/7", "-q", "1"]

        def subscriber() -> subprocess.Popen[bytes]:
            return subprocess.Popen(["mosquitto_sub", *topic, "-c", "-i", "onward"], stdout=open(file, "ab"))

        hears = subscriber()
        time.sleep(1)
        learner = Learner(file, out)
        sends = subprocess.Popen(["mosquitto_pub", *topic, "-l"], stdin=subprocess.PIPE, text=True)
        assert sends.stdin is not None
        sent = []
        for seq in range(1, ROWS + 1):
            sent.append(round(10 + math.sin(seq / 5) + draw.gauss(0, 0.1), 4))
            sends.stdin.write(json.dumps({"seq": seq, "temp": round(draw.gauss(5, 2), 3), "load": sent[-1]}) + "\n")
            sends.stdin.flush()
            time.sleep(0.1)
            if seq in (90, 150, 220):
                learner.end(signal.SIGKILL)
                learner = Learner(file, out)
            if seq == 120:
                hears.kill()
                hears.wait()
            if seq == 140:
                hears = subscriber()
        sends.stdin.close()
        sends.wait()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and learned(out)[-1:] != [ROWS]:
            time.sleep(0.5)
        learner.end(signal.SIGINT)
        hears.kill()
        broker.kill()
        for process in (hears, broker):
            process.wait()
        with open(out / "predictions.csv", newline="") as table:
            targets = [float(line["target"]) for line in csv.DictReader(table) if line["target"]]
        assert targets == sent, "a row is missing, or was learned twice"
        twice = len(file.read_text().splitlines()) - ROWS
        print(
            f"{ROWS} messages, each learned once; three kills of the learner, one of the subscriber; {twice} came twice"
        )


def learned(out: Path) -> list[int]:
    """The rows of the table so far."""
    if not os.path.exists(out / "predictions.csv"):
        return []
    with open(out / "predictions.csv", newline="") as table:
        return [int(line["row"]) for line in csv.DictReader(table) if line["target"] and line["row"]]


if __name__ == "__main__":
    main()
