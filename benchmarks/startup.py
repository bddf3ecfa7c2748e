"""CPU seconds that the command line takes before it does anything: the best of five, in processes of their own.

python benchmarks/startup.py
"""

import os
import resource
import subprocess
import sys

ROWS = [(["--help"], 0.3), (["list"], 0.5), (["run", "trace-patterning", "--help"], None)]


def spent(words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys; from onward.cli import main; sys.exit(main())"
    # Bytecode is kept, as it is for whoever has run a command before.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    print("CPU seconds of `onward` with these words, its process whole")
    for words, most in ROWS:
        best = min(spent(words) for _ in range(6))
        verdict = "" if most is None else f"   (at most {most})  {'ok' if best <= most else 'ABOVE'}"
        print(f"  {' '.join(words):32} {best:5.2f}{verdict}")


if __name__ == "__main__":
    main()
