"""`benchmarks/gpu.sh DATA OUT`: what a GPU is needed for, step by step, each in a process of its own; see docs/gpu.md."""
