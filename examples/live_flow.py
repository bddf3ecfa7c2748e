"""A worked example: a live stream. Water flow in a pipe (River's bundled data), one line an hour, with a restart.

    pip install "onward[river]"
    python examples/live_flow.py [FOLDER]

Every line is written to the standard input of `onward learn -`, which answers with the flow of the next hour before
the next line is sent. In the middle the learner is killed as by a power cut; the stream goes on from the row after its
last checkpoint, and nothing is learned twice.
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import series

from onward.rows.summary import as_lines


def serve(out: Path, header: list[str], rows: list[list[str]], *, resume: bool) -> list[str]:
    """Send rows one by one, and read the answer to each; the learner is killed after the last one."""
    where = ["--resume", str(out)] if resume else ["--out", str(out), "--replace"]
    command = [sys.executable, "-m", "onward.cli", "learn", "-", "--target", "flow", "--time", "time"]
    command += ["--checkpoint-seconds", "0.05", *where]
    answers = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as learner:
        assert learner.stdin
        assert learner.stdout
        learner.stdin.write(",".join(header) + "\n")
        learner.stdin.flush()
        learner.stdout.readline()
        for row in rows:
            learner.stdin.write(",".join(row) + "\n")
            learner.stdin.flush()
            answers.append(learner.stdout.readline().strip())
        if resume:  # the end of the stream: scores and report
            learner.stdin.close()
        else:
            learner.kill()
    return answers


def learned_rows(out: Path) -> int:
    """How many rows the newest checkpoint has learned: its name says so."""
    return max(int(path.stem.rpartition("-")[2]) for path in (out / "checkpoints").glob("*.npz"))


def main() -> None:
    """Feed, kill, resume."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    with open(series.write("water_flow", folder), newline="") as file:
        header, *rows = list(csv.reader(file))
    out, half = folder / "flow", len(rows) // 2
    answers = serve(out, header, rows[:half], resume=False)
    print(f"row {half}: {','.join(rows[half - 1])}; answer (row, prediction, low, high): {answers[-1]}")
    kept = learned_rows(out)
    print(f"killed. The last checkpoint has learned {kept} rows; going on with row {kept + 1}")
    answers = serve(out, header, rows[kept:], resume=True)
    print(f"row {len(rows)}: {','.join(rows[-1])}; answer: {answers[-1]}")
    print("\n".join(as_lines(out)))
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    main()
