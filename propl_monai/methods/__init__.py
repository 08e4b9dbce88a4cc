"""Training methods, one file each.

A method is an `nn.Module` that owns the network as `network` and has

    step(labelled, unlabelled, progress) -> dict

where `labelled` is a batch {"image": (B, 1, H, W), "label": (B, 1, H, W), "task": [B names]} or None, `unlabelled`
one without "label" (and with "image_strong" where the transform makes a second view) or None, and `progress` runs
from 0 to 1 over the training. The dict holds the scalar "loss" to descend and, for the log, its parts. `forward` is
`step`, so that `DistributedDataParallel` can wrap a method; the trainer knows no method by name.
"""
