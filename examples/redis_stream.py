"""Rows from a Redis stream, learned once each, though learner and reader are killed in between.

    apt-get install redis-server jq
    python examples/redis_stream.py

What runs is what a person would type, with `READER` below in the file reader.sh:

    bash reader.sh 6379 meters | onward learn - --target load --offset at --out runs/meter

Redis keeps what it was given, and numbers it by the millisecond: so nothing has to be written down in between. The
reader begins with the first entry after every restart, and `--offset` passes over the rows that are known.
"""

import csv
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mqtt import FIELDS, LEARN, free_port, learned

ROWS = 300
READER = """last=0-0
while true; do
  lot=$(redis-cli -p $1 --json XREAD COUNT 500 BLOCK 1000 STREAMS $2 $last) || sleep 1
  [ "${lot:0:1}" = "{" ] || continue
  jq -c '.[][] | (.[0] | split("-") | map(tonumber)) as [$ms, $n] | {at: ($ms * 1000 + $n)} +
    ([.[1] | range(0; length; 2) as $i | {(.[$i]): .[$i + 1]}] | add)' <<< "$lot"
  last=$(jq -r '[.[]][0][-1][0]' <<< "$lot")
done
"""


class Learner:
    """`bash reader.sh PORT meters | onward learn -`."""

    def __init__(self, port: int, out: Path):
        kept = list(out.glob("checkpoints/*.npz"))
        fields = ["--offset", "at", *(word for word in FIELDS if word not in ("--offset", "seq"))]
        words = ["--resume", str(out)] if kept else [*fields, "--replace", "--out", str(out)]
        script = out.parent / "reader.sh"
        script.parent.mkdir(exist_ok=True)
        script.write_text(READER)
        self.reader = subprocess.Popen(
            ["bash", str(script), str(port), "meters"], stdout=subprocess.PIPE, start_new_session=True
        )
        self.learn = subprocess.Popen(
            [*LEARN, *words], stdin=self.reader.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def end(self, number: signal.Signals) -> None:
        self.learn.send_signal(number)
        self.learn.wait()
        os.killpg(self.reader.pid, signal.SIGKILL)
        self.reader.wait()


def main() -> None:
    for program in ("redis-server", "redis-cli", "jq"):
        if shutil.which(program) is None:
            sys.exit("redis_stream.py runs against a server: apt-get install redis-server jq")
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as where:
        port, out = free_port(), Path(where) / "runs" / "meter"
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", where], stdout=subprocess.DEVNULL
        )
        time.sleep(1)
        learner, sent = Learner(port, out), []
        for seq in range(1, ROWS + 1):
            sent.append(round(10 + math.sin(seq / 5) + draw.gauss(0, 0.1), 4))
            values = ["temp", str(round(draw.gauss(5, 2), 3)), "load", str(sent[-1])]
            subprocess.run(
                ["redis-cli", "-p", str(port), "XADD", "meters", "*", *values], capture_output=True, check=True
            )
            time.sleep(0.1)
            if seq in (90, 150, 220):
                learner.end(signal.SIGKILL)
                learner = Learner(port, out)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and learned(out)[-1:] != [ROWS]:
            time.sleep(0.5)
        learner.end(signal.SIGINT)
        server.kill()
        server.wait()
        with open(out / "predictions.csv", newline="") as table:
            targets = [float(line["target"]) for line in csv.DictReader(table) if line["target"]]
        assert targets == sent, "an entry is missing, or was learned twice"
        print(f"{ROWS} entries, each learned once; three kills of learner and reader")


if __name__ == "__main__":
    main()
