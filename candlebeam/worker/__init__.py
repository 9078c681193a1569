"""What runs beside every TaskManager or executor of a cluster.

`python -m candlebeam.worker` is a pool that starts workers for `--environment_type=EXTERNAL`;
`candlebeam-boot` (`candlebeam.worker.boot`) is one worker, which `--environment_type=PROCESS`
starts by itself.
"""
