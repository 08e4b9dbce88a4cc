"""Training of the network: losses, methods, the trainer, validation, checkpoints and the records of a training.

In: batches of `data.loaders`, a network of `model`, options of train.json. Out: weights, metrics.jsonl, run.json.
Must not know: test cases, or how images outside a datalist are segmented.

Tested elsewhere: `checkpoints` by `test_records`, with resumed and interrupted trainings; `learning`,
`best_epoch` and `other_tasks` by the tests of MONAI Label's app and by `deploy/test_add_task`.
"""
