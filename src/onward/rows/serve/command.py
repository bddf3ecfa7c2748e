"""`onward serve`: a run folder, locked and gone on with, behind a socket."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from onward.errors import OnwardError
from onward.lab.folder import CONFIG, LOCK, RunFolder, same_fields
from onward.lab.signals import stopping
from onward.rows.learn import FREE, as_json, load_options
from onward.rows.options import Learn
from onward.rows.serve.app import listen
from onward.rows.serve.app import run as answer
from onward.rows.serve.options import Serve
from onward.rows.serve.service import Service


def run(path: Path, fields: dict[str, Any], serve: Serve) -> None:
    """Serve a run folder with these fields of `onward learn`, until a signal; then what was learned is kept.

    OnwardError where the folder is in use, or was learned with other fields, and where the address is taken.
    """
    say = lambda text: print(text, file=sys.stderr, flush=True)
    with listen(serve) as place, RunFolder(path, "learn") as folder:
        if (path / CONFIG).is_file():
            options = load_options(path)[0]
            asked = as_json(dataclasses.replace(options, **fields))
            same_fields(path, as_json(options), asked, FREE)
            options = dataclasses.replace(options, **{name: value for name, value in fields.items() if name in FREE})
        elif any(each.name != LOCK for each in path.iterdir()):
            raise OnwardError(f"{path} is not empty and not a run folder: name another folder")
        else:
            options = Learn(**fields)
        options.check()
        if options.workers:
            raise OnwardError("--workers: a service learns in one process; leave it out")
        known = as_json(options)
        if not (path / CONFIG).is_file():
            options.check_served()
            folder.begin(known, source="-")
        service = Service(options, known, folder, say)
        service.start()
        try:
            with stopping():  # the server sends itself again what it was ended by
                answer(service, serve, place, lambda url: say(f"{path} answers at {url}"))
        finally:
            say("stopping: what waits is answered, and what was learned is kept")
            service.stop()
        say(f"{service.row:,} rows are learned; go on with: onward serve {path}")
