"""`propl report`: one self-contained HTML page of a training and its evaluation.

In: the folders of a training and of its evaluation; weights and data if pictures and calibration are wanted. Out: one
page and calibration.json. Must not know: other runs, which are the lab's.

Tested elsewhere: `charts`, `collect`, `failures`, `run_files` and `write` by `test_page`, which looks at whole pages.
"""
