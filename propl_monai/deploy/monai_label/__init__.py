"""The app of MONAI Label. Its server loads `main.py`; only the environment of `labelling/` can import this part.

In: a bundle folder and the datastore of a server. Out: masks, trained weights, the next picture to label.
Must not know: the lab, or how a bundle is published.

Tested elsewhere: `main` by `test_generic_app` and `test_server`.
"""
