"""What the speed and memory of this package are measured with: `python -m benchmarks.speed`."""
