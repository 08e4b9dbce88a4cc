"""The parts of the app: one network for all entries; prediction, training and ranking, one entry per task.

In: requests of MONAI Label. Out: what its interfaces return. Must not know: where the server keeps its files.

Tested elsewhere: `datastore` by `test_hostile_requests`, `labels` by `test_submitted_labels`;
`infer`, `served`, `train` and `uncertainty` by `test_generic_app` and `test_server`.
"""
