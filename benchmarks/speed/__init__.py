"""Speed and memory of this package beside a plain rebuild of the released code: `python -m benchmarks.speed`."""
