"""The network of ProPL: encoder, prompts, decoders, UPLC as pure functions, weights files; in `networks` all others.

In: normalised images (B, 1, H, W) and a task or text for each. Out: logits (B, 1, H, W).
Must not know: image files, datalists, training, or where results go.

Tested elsewhere: `bundle_folder` by the tests of `Predictor`, `tensor_file` by `test_weights`.
"""
