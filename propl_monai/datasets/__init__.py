"""Data sets on disk: readers of public layouts, preparation, verification, protocols, phantoms, and the cases of a run.

In: folders as they are downloaded. Out: verified datalists, and the items that a run trains and evaluates on.
Must not know: networks, or how they are trained.

Tested elsewhere: `protocol` by `test_apply_protocol`.
"""
