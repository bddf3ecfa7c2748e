r"""A sweep on a Slurm cluster: workers start as Slurm jobs, run the sweep, and are ended with it.

    pip install "onward[dask]" dask-jobqueue
    python examples/slurm_sweep.py --jobs 20 --partition cpu -- \
        trace-patterning --methods ccn,columnar --step-sizes 1e-4,3e-4,1e-3 --seeds 64 --out /shared/sweep

Run it on a node that may submit jobs (under tmux or nohup), with --out on a disk that all nodes see. Everything behind
-- is what `onward sweep` takes. Each Slurm job is one worker on one core; jobs that the queue starts late join late, and
jobs that reach their time limit are replaced: what a worker had in hand goes on from its last checkpoint elsewhere. Stop with Ctrl-C
and give the same command again, and the sweep goes on. --print shows the batch script and submits nothing.
"""

import argparse
import sys

try:
    from dask_jobqueue import SLURMCluster
except ImportError:
    sys.exit(
        'examples/slurm_sweep.py needs Dask and its job queues: pip install "onward[dask]" dask-jobqueue; '
        'from a checkout, in its folder: pip install ".[dask]" dask-jobqueue'
    )

from onward.cli import main


def sweep() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8, help="Slurm jobs, of one worker each")
    parser.add_argument("--partition", help="Slurm partition; default: the cluster's own")
    parser.add_argument("--account", help="Slurm account to charge")
    parser.add_argument("--memory", default="4GB", help="of each job")
    parser.add_argument("--minutes", type=int, default=240, help="limit of each job")
    parser.add_argument("--gpu", action="store_true", help="ask for one GPU a job; add --device gpu to the sweep")
    parser.add_argument("--print", action="store_true", help="print the batch script and end")
    parser.add_argument("sweep", nargs="*", help="what `onward sweep` takes")
    arguments = parser.parse_args()
    cluster = SLURMCluster(
        queue=arguments.partition,
        account=arguments.account,
        cores=1,
        processes=1,
        memory=arguments.memory,
        walltime=f"{arguments.minutes // 60:02d}:{arguments.minutes % 60:02d}:00",
        job_extra_directives=["--gres=gpu:1"] if arguments.gpu else [],
        # A worker ends by itself before its job's limit, and its task moves on; not all of them at once.
        worker_extra_args=["--lifetime", f"{0.9 * arguments.minutes:.0f}m", "--lifetime-stagger", "2m"],
    )
    with cluster:
        if arguments.print:
            print(cluster.job_script())
            return 0
        cluster.adapt(minimum_jobs=arguments.jobs, maximum_jobs=arguments.jobs)
        return main(["sweep", *arguments.sweep, "--scheduler", cluster.scheduler_address])


if __name__ == "__main__":
    sys.exit(sweep())
