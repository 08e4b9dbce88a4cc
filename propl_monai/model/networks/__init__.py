"""Networks that segment, one file each, by name; ProPL itself is in `model.network`.

A new network is a subclass of `base.Segmenter`, or of `prompted.PromptedSegmenter` where a sentence selects the target; a
line in `registry.NETWORKS`; and a config laid over train.json. The tests of the registry then try it with every method.

In: images and tasks. Out: logits. Must not know: files, losses, training.

Tested elsewhere: `base`, `prompted`, `registry` and `plain_decoder` by `test_network_registry`; `versemi`, `vclipseg` and
`meduniseg_star`, as methods have these names too, by `test_versemi_network`, `test_vclipseg_network` and
`test_meduniseg_star_network`.
"""
