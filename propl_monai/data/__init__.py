"""From a datalist to batches: cases, splits, labelled subsets, MONAI transforms and paired loaders.

In: datalist files and pictures read by `images`. Out: batches of tensors (B, 1, H, W) with their tasks.
Must not know: where a public data set keeps its files, or what a network does with a batch.
"""
