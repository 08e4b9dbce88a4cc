"""Faults planted in data, trainings, predictions and bundles, and what is lost: `python -m benchmarks.reliability`.

A row of the table is a kind of fault. It is tried by trials of its own (kills, cut files, full disks, in numbers that no
test suite has time for), by tests of the suite, or both; the pieces in `tests/` that make pictures and trainings serve
here too.
"""
