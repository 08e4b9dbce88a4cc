"""From a datalist to batches: cases, splits, labelled subsets, MONAI transforms and paired loaders.

In: datalist files and pictures read by `images`. Out: batches of tensors (B, 1, H, W) with their tasks.
Must not know: the layouts of public data sets, or what a network does with a batch.

Tested elsewhere: `cases` by `test_datalist`, `grid` and `normalisations` by `test_transforms`.
"""
