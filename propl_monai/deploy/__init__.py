"""Sharing a network: ONNX and programs of torch with parity, releases of the bundle and their checks, a page, MONAI Label.

In: weights and the bundle folder. Out: files for other people's tools, or a served app.
Must not know: tables and reports.

Tested elsewhere: `exportable` and `parity` by `test_export`; `onnx_graph` by `inference/engines/test_onnx_engine`;
`zoo_checks` and `zoo_rehearsal` by `test_release`.
"""
