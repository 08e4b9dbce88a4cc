"""What runs the network: torch, or ONNX Runtime, which starts in a tenth of the time and needs no torch.

An engine brings a picture to the network's grid, encodes it once for all tasks, and brings maps back to the size of the
picture; the steps belong together, as torch and Pillow round differently.

Tested elsewhere: `base`, `choice`, `graph_file` and `torch_engine` by `test_engines`; `decoding` by `test_inferer`.
"""
