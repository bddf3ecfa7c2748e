"""A command that is run where a row is an alarm."""

import json
import queue
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any

from onward.errors import OnwardError, Stopped

# Alarms that may wait for the command; seconds that it may take, and that the end waits for those that wait.
WAITING, LONGEST, LAST = 100, 60.0, 60.0


class Alarmed(Stopped):
    """A row was an alarm, and --stop-on-alarm says to end then."""

    status = 3


def words_of(command: str) -> list[str]:
    """A command as a shell would take it apart; OnwardError where there is no such program."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise OnwardError(f"--on-alarm {command!r:.80}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        what = f"there is no program {words[0]!r:.80}" if words else "it names no program"
        raise OnwardError(f"--on-alarm: {what}; give its path")
    return words


class OnAlarm:
    """Runs a command for each alarm, one after the other, without a shell, the answer as JSON on its standard input.

    Learning never waits for it: of more than `WAITING` alarms that wait, further ones are counted and told in the end.
    """

    def __init__(self, command: str, say: Callable[[str], None]):
        self._words, self._say = words_of(command), say
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        self._lost, self._failed = 0, False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def tell(self, answers: Sequence[dict[str, Any]]) -> None:
        """Of these answers, the alarms."""
        for answer in answers:
            if answer.get("alarm"):
                try:
                    self._queue.put_nowait(answer)
                except queue.Full:
                    self._lost += 1

    def _work(self) -> None:
        while (answer := self._queue.get()) is not None:
            why = self._run(answer)
            if why and not self._failed:
                self._failed = True
                self._say(f"--on-alarm {self._words[0]}: {why}, at row {answer['row']:,}; further alarms run it again")

    def _run(self, answer: dict[str, Any]) -> str:
        """Why it failed; nothing where it did not."""
        text = json.dumps(answer, ensure_ascii=False)
        try:
            done = subprocess.run(
                self._words, input=text, text=True, timeout=LONGEST, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {LONGEST:g} seconds and was ended"
        except OSError as error:
            return str(error.strerror or error)
        last = done.stderr.strip().splitlines()[-1:] or [""]
        return f"it ended with status {done.returncode} {last[0][:100]}".rstrip() if done.returncode else ""

    def close(self) -> None:
        """Wait for the alarms that wait, not for ever."""
        try:
            self._queue.put(None, timeout=LAST)
            self._thread.join(LAST)
        except queue.Full:
            pass
        left = self._queue.qsize()
        if self._lost or left:
            self._say(f"--on-alarm {self._words[0]}: {self._lost + left:,} alarms came faster than it ran")
