"""Every published number and the command that regenerates it: `python -m benchmarks.NAME --json FILE`."""
