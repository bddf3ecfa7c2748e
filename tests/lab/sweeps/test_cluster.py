"""Sweeps on Dask workers: the same numbers, through kills and losses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onward.cli import main
from onward.errors import OnwardError
from onward.lab import cluster as clusters
from onward.lab.sweeps import cluster
from onward.lab.sweeps.cluster import Task, place

distributed = pytest.importorskip("distributed", reason="needs: pip install 'onward[dask]'")
psutil = pytest.importorskip("psutil")

ONWARD = [sys.executable, "-m", "onward.cli", "sweep", "trace-patterning", "--columnar-columns", "2", "--isi", "4 6"]
ONWARD += ["--iti", "8 10", "--methods", "columnar", "--step-sizes", "1e-3,1e-2", "--seeds", "4", "--tile", "4"]


def table(folder, name="runs.csv"):
    with open(folder / name) as file:
        return [{k: v for k, v in row.items() if k != "cpu_seconds"} for row in csv.DictReader(file)]


def workers_of(process):
    return [c for c in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in " ".join(c.cmdline())]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    return found


def at(folder):
    """Steps of every job that runs, as far as it told."""
    found = {}
    for path in (folder / "jobs").glob("*/at.json"):
        try:
            found[path.parent.name] = json.loads(path.read_text())["step"]
        except ValueError:
            continue
    return found


@pytest.fixture(scope="module")
def single(tmp_path_factory, as_users_start_it):
    """In one process, of its own: programs are compiled as in the workers."""
    folder = tmp_path_factory.mktemp("single")
    command = [*ONWARD, "--steps", "300000", "--out", str(folder)]
    subprocess.run(command, capture_output=True, check=True, env=as_users_start_it)
    return folder


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(single, tmp_path, as_users_start_it):
    folder = tmp_path / "s"
    command = [*ONWARD, "--steps", "300000", "--workers", "2", "--out", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=as_users_start_it)
    try:
        wait_for(lambda: max(at(folder).values(), default=0) > 1000 and process.poll() is None)
        victim = max(workers_of(process), key=lambda c: c.cpu_times().user)
        os.kill(victim.pid, signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert table(folder) == table(single)
    assert table(folder, "points.csv") == table(single, "points.csv")
    assert table(folder, "configurations.csv") == table(single, "configurations.csv")


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(single, tmp_path, as_users_start_it):
    """SIGINT to the whole group, as a terminal sends it: workers save, the command names how to go on."""
    folder = tmp_path / "s"
    command = [*ONWARD, "--steps", "300000", "--workers", "2", "--out", str(folder)]
    started = {"text": True, "start_new_session": True, "env": as_users_start_it}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, **started)
    try:
        wait_for(lambda: max(at(folder).values(), default=0) > 1000)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "the same command goes on with the rest" in said
    assert "Traceback" not in said
    saved = list(folder.glob("jobs/*/checkpoints/*"))
    assert saved or len(list((folder / "results").iterdir())) == 2
    subprocess.run(command, capture_output=True, check=True, env=as_users_start_it)
    assert table(folder) == table(single)


def works(argument, settings):
    return {"runs": [], "pid": os.getpid(), "cores": sorted(os.sched_getaffinity(0))}


def dies(argument, settings):
    os._exit(9)


def breaks(argument, settings):
    if argument["how"] == "ours":
        raise OnwardError("no room on the disk")
    raise ZeroDivisionError("division by zero")


@pytest.mark.interfaces
def test_errors_of_jobs_are_named_and_the_others_go_on(tmp_path, capsys):
    tasks = [Task(dies, {}, "a"), Task(breaks, {"how": "ours"}, "b"), Task(breaks, {"how": "other"}, "c")]
    tasks += [Task(works, {"n": n}, f"d{n}") for n in range(6)]
    with place(2, "", print) as where:
        assert where.workers == 2
        ended = {t.name: t for t in where.run(tasks, {"folder": str(tmp_path)}, lambda *_: {}, lambda: False)}
    assert set(ended) == {t.name for t in tasks}
    assert "died again and again" in ended["a"].error
    assert ended["b"].error == "no room on the disk"
    assert ended["c"].error == "ZeroDivisionError: division by zero"
    good = [ended[f"d{n}"].value for n in range(6)]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= 2:  # each worker on its own share
        assert all(len(value["cores"]) == len(cores) // 2 for value in good)


@pytest.mark.interfaces
def test_workers_that_are_all_gone_are_replaced(tmp_path, monkeypatch):
    """As when Dask has given them up, for they could not be started again in time."""
    monkeypatch.setattr(cluster, "LOST_SECONDS", 1.0)
    said, tasks = [], [Task(works, {"n": n}, f"d{n}") for n in range(3)]
    with place(1, "", said.append) as where:
        where._client.sync(where._client.scheduler.retire_workers, close_workers=True)
        wait_for(lambda: not where._client.scheduler_info(n_workers=-1)["workers"])
        ended = list(where.run(tasks, {"folder": str(tmp_path)}, lambda *_: {}, lambda: False))
    assert not any(task.error for task in ended)
    assert len(ended) == 3
    assert "all workers are gone: starting new ones" in said


@pytest.mark.interfaces
def test_no_scheduler_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 1)
    for address, words in (("tcp://127.0.0.1:9", "no Dask scheduler"), ("foo", "neither an address")):
        assert main([*ONWARD[3:], "--scheduler", address, "--out", str(tmp_path / "s")]) == 1
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_the_scheduler_dies(tmp_path):
    """The command says so and ends; nothing of what was saved is lost."""
    file = tmp_path / "scheduler.json"
    words = ["--scheduler-file", str(file), "--no-dashboard", "--port", "0", "--host", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *words], **quiet)
    worker = process = None
    try:
        wait_for(file.exists)
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
             "--no-dashboard", "--local-directory", str(tmp_path / "local")], **quiet)  # fmt: skip
        folder = tmp_path / "s"
        command = [*ONWARD, "--steps", "3000000", "--scheduler", str(file), "--out", str(folder)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: max(at(folder).values(), default=0) > 1000)
        scheduler.kill()
        _, said = process.communicate(timeout=120)
    finally:
        for one in (scheduler, worker, process):
            if one is not None:
                one.kill()
                one.wait()
    assert process.returncode == 1
    assert "the scheduler is gone" in said
    assert "Traceback" not in said, said


def test_dask_is_an_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([*ONWARD[3:], "--workers", "2", "--out", str(tmp_path / "s")]) == 1
    assert '--workers needs distributed: pip install "onward[dask]"' in capsys.readouterr().err


@pytest.mark.slow
def test_the_slurm_example_submits_workers_that_run_the_sweep(tmp_path):
    """With an `sbatch` of ours, which runs the script at once: half an oracle, for there is no Slurm here."""
    pytest.importorskip("dask_jobqueue")
    (tmp_path / "sbatch").write_text(
        f'#!/bin/sh\ngrep -v "^#SBATCH" "$1" > {tmp_path}/job.$$\nsh {tmp_path}/job.$$ > {tmp_path}/log.$$ 2>&1 &\n'
        'echo "Submitted batch job $$"\n'
    )
    (tmp_path / "scancel").write_text("#!/bin/sh\nexit 0\n")
    for name in ("sbatch", "scancel"):
        (tmp_path / name).chmod(0o755)
    example = str(Path(__file__).parents[3] / "examples" / "slurm_sweep.py")
    script = subprocess.run([sys.executable, example, "--print"], capture_output=True, text=True, check=True).stdout
    assert "#SBATCH -t 04:00:00" in script
    assert "--lifetime 216m" in script
    words = [*ONWARD[4:], "--steps", "3000", "--out", str(tmp_path / "s")]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, example, "--jobs", "2", "--", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=200)
    assert "columnar" in done.stdout
    assert len(table(tmp_path / "s")) == 8
