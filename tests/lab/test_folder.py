"""The folder of a run: nothing lost, nothing twice, one command at a time, and no folder harmed that is none of ours."""

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from onward import saving
from onward.cli import main
from onward.errors import OnwardError
from onward.lab import folder as lab_folder
from onward.lab.experiment import config_of
from onward.lab.folder import (
    CONFIG,
    LOCK,
    RunFolder,
    newest_first,
    newest_good,
    path_of,
    prune,
    read_config,
    same_fields,
)
from onward.lab.papers import kind_of
from onward.lab.records import load_record
from onward.lab.signals import leaving_at_once, stopping
from onward.lab.train import read_metrics
from onward.rows.learn import as_json
from onward.rows.options import Learn


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Of the machine a word is enough here."""
    monkeypatch.setattr(lab_folder, "environment", lambda: {"python": "3"})


@pytest.fixture
def made(tmp_path):
    """A folder of `onward run`, with a file of its own."""
    with RunFolder(tmp_path / "made", "run") as folder:
        folder.begin({"steps": 6}, experiment="trace-patterning")
        folder.append("metrics.jsonl", "one\n")
    return tmp_path / "made"


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def fails(path, error, *, replace=False, held=False, settled=False):
    """A start that comes to an end."""
    with RunFolder(path, "run") as folder:
        folder.begin({"steps": 7}, replace=replace)
        folder.append("metrics.jsonl", "new\n")
        if held:
            folder.hold()
        if settled:
            folder.settle()
        raise error("stopped")


# Made, refused, replaced


def test_a_new_folder_says_what_it_is(made):
    config = json.loads((made / CONFIG).read_text())
    assert list(config) == ["format", "onward", "command", "experiment", "fields"]
    assert (config["command"], config["fields"]) == ("run", {"steps": 6})
    assert read_config(made, "run") == config
    assert sorted(contents(made)) == ["config.json", "environment.json", "metrics.jsonl"]


def test_a_folder_in_which_nothing_is_begun_is_left_as_it_was(tmp_path):
    with pytest.raises(OnwardError, match="wrong column"), RunFolder(tmp_path / "runs" / "learn", "learn"):
        raise OnwardError("wrong column")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(OnwardError):
        fails(tmp_path / "mine", OnwardError)
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]
    assert not contents(tmp_path)


def test_a_folder_that_holds_something_is_refused_and_harmed_by_nobody(made, tmp_path):
    thesis = tmp_path / "mine" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    (tmp_path / "file").write_text("")
    before = contents(tmp_path)
    for path, command, replace, words in (
        (made, "run", False, "holds a run already. Go on with --resume"),
        (made, "learn", True, "made belongs to onward run: go on with onward run --resume"),
        (made, "sweep", False, "made belongs to onward run"),
        (thesis.parent, "run", False, "not empty and not a run folder"),
        (thesis.parent, "learn", True, "--replace will not delete it"),
        (tmp_path / "file", "run", True, "is a file"),
        (tmp_path / "file" / "below", "run", True, "cannot make the folder"),
    ):
        with pytest.raises(OnwardError, match=words), RunFolder(path, command) as folder:
            folder.begin({}, replace=replace)
    assert contents(tmp_path) == before


def test_an_older_run_of_the_command_is_replaced_wholly(made):
    saving.save_arrays(path_of(made / "checkpoints", "a", 3), {}, {})
    (made / "elsewhere").symlink_to(made.parent)  # a link goes, not what it leads to
    with RunFolder(made, "run") as folder:
        folder.begin({"steps": 7}, replace=True)
    assert sorted(contents(made)) == ["config.json", "environment.json"]
    assert made.parent.exists()


@pytest.mark.parametrize("error", [OnwardError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("settled", [False, True])
def test_what_is_replaced_comes_back_unless_there_is_something_to_go_on_with(made, settled, error):
    (made / "records").mkdir()
    (made / "records" / "a.npz").write_text("old")
    before = contents(made)
    with pytest.raises(error):
        fails(made, error, replace=True, settled=settled)
    if settled:
        assert sorted(contents(made)) == ["config.json", "environment.json", "metrics.jsonl"]
        assert (made / "metrics.jsonl").read_text() == "new\n"
    else:
        assert contents(made) == before


def test_a_run_that_fails_after_its_first_checkpoint_leaves_the_older_one_beside_it_until_it_is_through(made):
    before = contents(made)
    with pytest.raises(OnwardError, match=r"stopped\. What it was to replace is in .*\.kept until it is through"):
        fails(made, OnwardError, replace=True, held=True)
    assert contents(made / ".kept") == before
    assert read_config(made)["fields"] == {"steps": 7}
    both = contents(made)
    with pytest.raises(OnwardError):  # a third start that fails changes nothing
        fails(made, OnwardError, replace=True)
    assert contents(made) == both
    with RunFolder(made, "run") as folder:
        folder.resume()
        folder.settle()
    assert sorted(contents(made)) == ["config.json", "environment.json", "metrics.jsonl"]


class Killed(BaseException):
    """The process is no more: nothing of it is done after this."""


def test_a_replacement_that_is_killed_at_any_point_leaves_the_old_or_the_new_whole(tmp_path, monkeypatch):
    """Whoever locks the folder next finds one of them, and nothing besides; it may be killed too."""
    old, ends, at = {"config.json", "environment.json", "metrics.jsonl", "records/a.npz"}, [], 0
    while not ends or ends[-1] != "not killed":
        at += 1
        path, done = tmp_path / str(at), 0
        with RunFolder(path, "run") as folder:
            folder.begin({"steps": 6}, experiment="memory")
            folder.append("metrics.jsonl", "old\n")
            (path / "records").mkdir()
            (path / "records" / "a.npz").write_text("old")
        before = contents(path)

        def counted(does):
            def call(*arguments, **named):
                nonlocal done
                done += 1
                if done == at:  # noqa: B023
                    raise Killed
                return does(*arguments, **named)

            return call

        def cut(*arguments, **named):
            """As after a kill: the lock goes, and nobody tidies up."""
            arguments[0]._lock.release()

        end = "not killed"
        with monkeypatch.context() as patch:
            for owner, name in ((Path, "rename"), (Path, "mkdir"), (Path, "rmdir"), (Path, "unlink"), (os, "rmdir"),
                                (os, "unlink"), (saving, "write_json")):  # fmt: skip
                patch.setattr(owner, name, counted(getattr(owner, name)))
            patch.setattr(RunFolder, "__exit__", cut)
            try:
                with RunFolder(path, "run") as folder:
                    folder.begin({"steps": 7}, replace=True, experiment="memory")
                    folder.append("metrics.jsonl", "new\n")
                    folder.hold()
                    folder.settle()
            except Killed:
                end = "killed"
        for _ in range(2):
            with RunFolder(path, "run"):
                pass
        now = contents(path)
        if set(now) == old:
            assert now == before
            end += ", old"
        else:
            both = {name.removeprefix(".kept/"): now.pop(name) for name in [*now] if name.startswith(".kept/")}
            assert both in ({}, before)
            assert set(now) == old - {"records/a.npz"}
            assert read_config(path)["fields"] == {"steps": 7}
            assert now["metrics.jsonl"] == b"new\n"
            end = end if end == "not killed" else "killed, both" if both else "killed, new"
        ends.append(end)
    order = ["killed, old", "killed, both", "killed, new", "not killed"]
    assert set(ends) == {*order}
    assert ends == sorted(ends, key=order.index)
    assert len(ends) > 12


BAD_STARTS = {
    "learn, a network too large": (
        ["learn", "data.csv", "--target", "y", "--network", "lstm", "--units", "2000"],
        None,
    ),
    "learn, no memory": (["learn", "data.csv", "--target", "y"], "onward.rows.session.Session.take"),
    "run, no memory": (["run", "memory", "--steps", "120"], "onward.lab.train.Training.chunk"),
    "sweep, no memory": (
        ["sweep", "memory", "--methods", "rtrl", "--steps", "120,240"],
        "onward.lab.sweeps.sweep._plan",
    ),
    "sweep, no memory for a job": (
        ["sweep", "memory", "--methods", "rtrl", "--steps", "120,240"],
        "onward.lab.sweeps.jobs._train",
    ),
}


@pytest.mark.parametrize("start", BAD_STARTS)
@pytest.mark.parametrize("replace", [False, True])
def test_a_start_that_fails_says_so_in_a_line_makes_nothing_and_deletes_nothing(
    start, replace, tmp_path, monkeypatch, capsys
):
    (words, broken), path = BAD_STARTS[start], tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("y,x\n" + "1,2\n3,5\n" * 20)
    if replace:
        with RunFolder(path, words[0]) as folder:
            folder.begin({"steps": 6}, experiment="memory", source="data.csv")
            folder.append("metrics.jsonl", "one\n")
    before = contents(tmp_path)
    if broken:

        def fail(*_, **__):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4000000000000 bytes.")

        monkeypatch.setattr(broken, fail)
    assert main([*words, "--out", "out", *(["--replace"] if replace else [])]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("onward: ")] == said[-1:]
    assert ("does not fit" if broken is None else "not enough memory") in said[-1]
    assert contents(tmp_path) == before
    assert path.exists() == replace


def test_a_kill_while_the_configuration_is_written_leaves_a_free_folder(tmp_path):
    (tmp_path / f"{CONFIG}.part").write_text('{"form')
    with RunFolder(tmp_path, "run") as folder:
        folder.begin({})


# Another command's, another version's, damaged

OLD = {
    "run": {"format": 1, "onward": "0.1.0", "experiment": "trace-patterning", "fields": {"steps": 5}},
    "learn": {"command": "learn", "source": "data.csv", "options": {"target": ["y"]}},
    "sweep": {"format": 1, "onward": "0.1.0", "definition": {}, "settings": {}, "tiles": {}, "jobs": []},
}


@pytest.mark.parametrize("command", OLD)
def test_a_folder_of_version_0_1_is_refused_by_that_name_and_can_be_replaced(command, tmp_path, capsys):
    path = tmp_path / ("sweep.json" if command == "sweep" else CONFIG)
    path.write_text(json.dumps(OLD[command]))
    data = tmp_path.parent / "data.csv"
    data.write_text("y\n1\n")
    words = {
        "run": [["run", "--resume", tmp_path]],
        "learn": [["learn", data, "--resume", tmp_path], ["predict", tmp_path, data]],
        "sweep": [["sweep", "memory", "--methods", "rtrl", "--out", tmp_path]],
    }[command]
    for arguments in (*words, ["report", tmp_path]):
        assert main([str(word) for word in arguments]) == 1
        said = capsys.readouterr().err
        assert "written by onward 0.1.0. Go on with that version, or start anew with --replace" in said
        assert len(said.splitlines()) == 1
    assert list(contents(tmp_path)) == [path.name]
    other = {"run": "learn", "learn": "sweep", "sweep": "run"}[command]
    with pytest.raises(OnwardError, match=f"belongs to onward {command}"), RunFolder(tmp_path, other) as folder:
        folder.begin({}, replace=True)
    with RunFolder(tmp_path, command) as folder:
        folder.begin({}, replace=True)
    assert read_config(tmp_path)["format"] == lab_folder.FORMAT


def test_a_folder_of_another_command_says_whose_it_is_and_how_to_go_on(tmp_path, capsys):
    (tmp_path / "data.csv").write_text("y\n1\n")
    again = {
        "run": "onward run --resume {}",
        "learn": "onward learn data.csv --resume {}",
        "sweep": "onward sweep memory ... --out {}",
        "job": "the sweep that it is a job of",
    }
    for command, more in (("run", {"experiment": "memory"}), ("learn", {"source": "data.csv"}),
                          ("sweep", {"experiment": "memory"}), ("job", {})):  # fmt: skip
        path = tmp_path / command
        with RunFolder(path, command) as folder:
            folder.begin({}, **more)
        before = contents(path)
        for arguments in (
            ["run", "--resume", path],
            ["run", "memory", "--out", path, "--replace"],
            ["learn", tmp_path / "data.csv", "--target", "y", "--resume", path],
            ["learn", tmp_path / "data.csv", "--target", "y", "--out", path, "--replace"],
            ["predict", path, tmp_path / "data.csv"],
            ["sweep", "memory", "--methods", "rtrl", "--out", path],
        ):
            if {"predict": "learn"}.get(arguments[0], arguments[0]) != command:
                assert main([str(word) for word in arguments]) == 1
                said = capsys.readouterr().err
                assert f"{path} belongs to onward {command}: go on with {again[command].format(path)}" in said
        assert contents(path) == before
    assert main(["report", str(tmp_path / "job")]) == 1
    assert "belongs to onward job" in capsys.readouterr().err


def test_a_damaged_configuration_is_named(made):
    for text, words in (("{", "damaged"), ("[]", "damaged"), ('{"format": 99}', "has format 99"), ("{}", "no format"),
                        (f'{{"format": {lab_folder.FORMAT}, "onward": "1"}}', "damaged, .*: command is missing")):  # fmt: skip
        (made / CONFIG).write_text(text)
        with pytest.raises(OnwardError, match=words):
            read_config(made)


def test_a_folder_of_another_version_is_refused_where_numbers_are_not_to_be_mixed(made):
    (made / CONFIG).write_text(json.dumps(read_config(made) | {"onward": "0.0.9"}))
    assert read_config(made)["onward"] == "0.0.9"
    with pytest.raises(OnwardError, match=r"of onward 0\.0\.9"):
        read_config(made, same_version=True)


def test_other_fields_are_refused_by_name(made):
    before = {"steps": 6, "isi": [4, 6], "time": "", "every": 5}
    same_fields(made, before, {"isi": (4, 6), "every": 6}, free=("every",))
    for asked, words in (({"steps": 7}, "--steps 6, not 7"), ({"isi": (4, 7)}, "--isi 4 6, not 4 7"),
                         ({"time": "t"}, "--time unset, not t"), ({"new_one": 1}, "--new-one unset, not 1")):  # fmt: skip
        with pytest.raises(OnwardError, match=words):
            same_fields(made, before, asked)


# One at a time


def test_nobody_writes_who_has_not_locked(made):
    for write in (lambda f: f.append("a", "b"), lambda f: f.cut({}), lambda f: f.begin({})):
        with pytest.raises(RuntimeError, match="not locked"):
            write(RunFolder(made, "run"))


def test_the_lock_says_who_works_there_and_goes_with_them(made):
    with RunFolder(made, "run"):
        for _ in range(2):  # one who is refused does not take away what the next one is told
            with pytest.raises(OnwardError) as refused, RunFolder(made, "report"):
                pass
            assert f"in use by another onward: onward run, process {os.getpid()} on " in str(refused.value)
    assert LOCK not in contents(made)
    with RunFolder(made, "report"):
        pass


def test_two_commands_in_one_folder_all_five(tmp_path, capsys):
    """The second is refused at once, whichever it is, and the folder is as it was."""
    (tmp_path / "data.csv").write_text("y\n1\n")
    owners = {"run": {"experiment": "memory"}, "sweep": {"experiment": "memory"}, "learn": {"source": "data.csv"}}
    for command, more in owners.items():
        path = tmp_path / command
        with RunFolder(path, command) as folder:
            folder.begin({}, **more)
            if command == "learn":
                folder.configure(as_json(Learn(target=("y",))), **more)
            if command == "run":
                folder.configure(config_of(kind_of("memory")()), **more)
            second = {
                "run": [["run", "memory", "--out", path], ["run", "--resume", path]],
                "sweep": [["sweep", "memory", "--methods", "rtrl", "--out", path]],
                "learn": [
                    ["learn", tmp_path / "data.csv", "--target", "y", "--out", path, "--replace"],
                    ["learn", tmp_path / "data.csv", "--resume", path],
                    ["predict", path, tmp_path / "data.csv"],
                ],
            }[command]
            before = contents(path)
            for arguments in (*second, ["report", path]):
                assert main([str(word) for word in arguments]) == 1, arguments
                said = capsys.readouterr().err
                assert f"{path} is in use by another onward: onward {command}, process {os.getpid()}" in said
                assert len(said.splitlines()) == 1
            assert contents(path) == before


def test_two_resumes_of_one_run_by_two_processes(tmp_path):
    """The second ends at once, and writes nothing; a third, after the first is killed, finds no lock in its way."""
    experiment = kind_of("memory")(methods=("rtrl",), units=2, seeds=2, steps=10**9)
    with RunFolder(tmp_path / "run", "run") as folder:
        folder.begin(config_of(experiment), experiment="memory")
    command = [sys.executable, "-m", "onward.cli", "run", "--resume", str(folder)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, **pipes)
    try:
        while not ((folder / LOCK).exists() and f'"process": {first.pid},' in (folder / LOCK).read_text()):
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.02)
        second = subprocess.Popen(command, **pipes)
        _, said = second.communicate(timeout=240)
        assert second.returncode == 1
        assert f"in use by another onward: onward run, process {first.pid} on " in said.splitlines()[-1]
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert (folder / LOCK).exists()
    with RunFolder(folder.path, "run") as again:
        again.resume()
    steps = [point["step"] for point in read_metrics(folder.path)]
    assert steps == sorted(set(steps))


def test_who_opened_the_lock_file_before_it_was_deleted_holds_no_lock(made, monkeypatch):
    """The first one leaves after the second one opened the file and before it locks it: a lock without a name."""
    first, flock = RunFolder(made, "run").__enter__(), fcntl.flock

    def late(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.__exit__(None, None, None)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with RunFolder(made, "run"):
        assert fcntl.flock is flock
        with pytest.raises(OnwardError, match="in use by another onward"), RunFolder(made, "run"):
            pass


def test_predictions_take_turns(made, monkeypatch):
    """One that holds the lock for a moment is waited for by its like, and by nobody else."""
    with RunFolder(made, "predict") as first:
        monkeypatch.setattr(time, "sleep", lambda seconds: first.__exit__(None, None, None))
        with RunFolder(made, "predict", wait=lambda holder: holder["command"] == "predict"):
            pass


def test_a_folder_that_may_only_be_read_is_predicted_from(made, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: False)
    with RunFolder(made, "predict"):
        assert LOCK not in contents(made)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    def no_locks(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        pytest.raises(OnwardError, match="on file systems with locks"),
        RunFolder(tmp_path / "a", "run"),
    ):
        pass
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != LOCK]


# Nothing lost, nothing twice


def test_a_file_cut_back_to_a_checkpoint_and_gone_on_with_equals_the_uninterrupted_one(tmp_path):
    """Whatever was appended after the checkpoint, half a line too: a crash at every byte."""
    lines = ["a,1\n", "b,2\n", "ä,3\n", "d,4\n"]
    whole = "".join(lines).encode()
    with RunFolder(tmp_path / "x", "learn") as folder:
        for kept in range(len(lines)):
            for crash in range(len(b"".join(line.encode() for line in lines[kept:]))):
                folder.cut({"rows.csv": 0})
                folder.append("rows.csv", "".join(lines[:kept]))
                sizes = folder.sizes("rows.csv")  # goes into the checkpoint
                with open(folder / "rows.csv", "ab") as file:
                    file.write("".join(lines[kept:]).encode()[:crash])
                folder.cut(sizes)
                for line in lines[kept:]:
                    folder.append("rows.csv", line)
                assert (folder / "rows.csv").read_bytes() == whole


def test_the_disk_holds_what_a_checkpoint_says_is_written(made, monkeypatch):
    """After a power failure a file must not be shorter than at the checkpoint."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_ino, os.fstat(number).st_size)))
    with RunFolder(made, "run") as folder:
        folder.append("rows.csv", "one\n")
        assert folder.sizes("rows.csv", "none.csv") == {"rows.csv": 4, "none.csv": 0}
    assert synced == [((made / "rows.csv").stat().st_ino, 4)]


def test_a_file_shorter_than_at_its_checkpoint_is_refused_and_none_is_cut(made):
    with RunFolder(made, "run") as folder:
        folder.append("other.csv", "four")
        with pytest.raises(OnwardError, match=r"metrics.jsonl has 4 bytes and had 1,000: it was changed since"):
            folder.cut({"other.csv": 2, "metrics.jsonl": 1000})
        with pytest.raises(OnwardError, match=r"gone.csv has 0 bytes and had 1"):
            folder.cut({"gone.csv": 1})
    assert (made / "other.csv").read_text() == "four"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_told(made):
    (made / "full.csv").symlink_to("/dev/full")
    with RunFolder(made, "run") as folder, pytest.raises(OnwardError, match="what was saved before is intact"):
        folder.append("full.csv", "x")


def test_a_file_is_old_or_new_and_never_between(made, monkeypatch):
    before = contents(made)

    def fails(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with RunFolder(made, "run") as folder, pytest.raises(OnwardError, match="No space left"):
        folder.configure({"steps": 7}, experiment="trace-patterning")
    assert contents(made) == before


def test_checkpoints_come_newest_first_and_fall_back_to_the_one_before(tmp_path):
    for step in (5, 20, 100, 3000):
        saving.save_arrays(path_of(tmp_path, "a", step), {"x": np.arange(step)}, {"step": step})
    saving.save_arrays(path_of(tmp_path, "a.1", 7), {}, {"step": 7})  # another job
    (tmp_path / "a-000000000050.npz.part").write_text("of a kill")
    prune(tmp_path, "a")
    newest, before = newest_first(tmp_path, "a")
    assert not list(tmp_path.glob("*.part"))
    assert [int(p.stem.split("-")[1]) for p in (newest, before)] == [3000, 100]
    said: list[str] = []
    read = lambda path: saving.read_meta(path)["step"]
    assert newest_good(tmp_path, "a", read, said.append) == 3000
    data = newest.read_bytes()
    for damaged in (b"", data[:-40], b"no checkpoint"):
        newest.write_bytes(damaged)
        said.clear()
        assert newest_good(tmp_path, "a", read, said.append) == 100
        assert [str(newest) in text and "trying the one before" in text for text in said] == [True]
    before.write_bytes(b"")
    assert newest_good(tmp_path, "a", read, said.append) is None
    assert newest_first(tmp_path, "a.1") == [path_of(tmp_path, "a.1", 7)]


def test_records_come_back(tmp_path):
    with RunFolder(tmp_path, "run") as folder:
        folder.record("a", "end", {"x": np.arange(3)})
    assert load_record(tmp_path, "a", "end")["x"].tolist() == [0, 1, 2]
    assert load_record(tmp_path, "a", "start") == {}


# Stopping


def test_a_handler_of_one_s_own_is_kept_and_python_s_comes_back():
    theirs = lambda number, frame: None
    for before in (theirs, signal.default_int_handler):
        usual = signal.signal(signal.SIGINT, before)
        try:
            with leaving_at_once():
                assert (signal.getsignal(signal.SIGINT) is before) == (before is theirs)
            assert signal.getsignal(signal.SIGINT) is before
        finally:
            signal.signal(signal.SIGINT, usual)


def test_ctrl_c_is_heard_while_the_package_is_imported():
    program = (
        "import os, signal, sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('onward', 'onward.cli'):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "from onward_script import main\n"
        "sys.exit(main())"
    )
    ended = subprocess.run([sys.executable, "-c", program, "list"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "onward: stopped; nothing was begun\n")
    program = "import sys; from onward_script import main; sys.exit(main())"
    assert subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True).returncode == 0


COMMANDS = {
    "run": ["run", "trace-patterning", "--steps", "100000000", "--out", "out"],
    "learn": ["learn", "-", "--target", "y", "--out", "out"],
    "verify": ["verify"],
}


@pytest.mark.parametrize(
    ("command", "tries"),
    [pytest.param(name, 3, marks=pytest.mark.interfaces) for name in COMMANDS]
    + [pytest.param(name, 30, marks=pytest.mark.slow) for name in COMMANDS],
)
def test_ctrl_c_ends_a_command_at_any_moment(command, tries, tmp_path):
    """From when the command can hear it on: one line, status 130, soon, and no folder where nothing was begun."""
    draw, clean = random.Random(tries), 0
    program = "import sys; from onward.cli import main; print('here', flush=True); sys.exit(main())"
    for i in range(tries):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-c", program, *COMMANDS[command]],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "here\n"
        time.sleep(draw.uniform(0.01, 0.05) if i == 0 else draw.uniform(0, 4))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith("onward: stopped"), said
        if "nothing was begun" in said:
            clean += 1
            assert not (tmp_path / "out").exists()
    assert clean


def test_the_first_signal_asks_and_the_second_one_stops():
    before = signal.getsignal(signal.SIGTERM)
    with stopping() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    with stopping() as stop:
        stop.waiting = True
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert not stop()
