"""The ways out: ONNX and TorchScript with parity, zoo releases and their checks, MONAI Label.

In: weights and the bundle folder. Out: files for other people's tools, or a served app.
Must not know: tables and reports.
"""
