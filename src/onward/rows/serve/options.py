"""What a person can say to `onward serve`, beside what learns."""

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from onward.errors import OnwardError, needs

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Serve:
    """Where a service listens, and what it takes."""

    host: str = "127.0.0.1"
    """Address to listen at. Any but this machine's own (127.0.0.1, localhost, ::1) needs a token."""
    port: int = 8000
    """Port to listen at; 0: any that is free."""
    token_file: str = ""
    """File whose first line callers must send as Authorization: Bearer TOKEN. Empty: the variable ONWARD_TOKEN, if it
    is set; else none is asked for."""
    most_bytes: int = 8_388_608
    """Bytes that the body of a request may have."""
    most_connections: int = 512
    """Requests that may be in hand at a time; more are told to come back (503)."""
    most_a_second: float = 0.0
    """Requests a second that one address may send, in the mean; more are told to wait (429). 0: as many as it likes."""

    def check(self) -> None:
        """Refuse what cannot be served."""
        if find_spec("starlette") is None or find_spec("uvicorn") is None:
            raise OnwardError(needs("onward serve", "serve"))
        if not 0 <= self.port < 2**16:
            raise OnwardError(f"--port must be from 0 to 65535, got {self.port}")
        for name in ("most_bytes", "most_connections"):
            if getattr(self, name) < 1:
                raise OnwardError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.most_a_second < math.inf:
            raise OnwardError(f"--most-a-second must be 0 or more, got {self.most_a_second}")
        if self.host not in LOCAL and not self.token:
            raise OnwardError(
                f"--host {self.host} can be reached from other machines: put a token into a file and name it with "
                "--token-file, or set ONWARD_TOKEN"
            )

    @property
    def token(self) -> str:
        """What callers must know; "": nothing."""
        if not self.token_file:
            return os.environ.get("ONWARD_TOKEN", "").strip()
        try:
            token = Path(self.token_file).read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OnwardError(f"--token-file {self.token_file}: {getattr(error, 'strerror', None) or error}") from error
        if not token:
            raise OnwardError(f"--token-file {self.token_file}: its first line is empty")
        return token
