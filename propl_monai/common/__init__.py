"""What every room may use: files written whole, run.json, options as text, ranks, and how the bundle is started.

In: paths, options, environment of `torch.distributed`. Out: files and processes.
Must not know: pictures, tasks, networks.

Tested elsewhere: `findings` by the tests of verification and of the zoo's checks.
"""
