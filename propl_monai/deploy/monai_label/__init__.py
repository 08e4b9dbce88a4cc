"""The app of MONAI Label. Its server loads `main.py`; only the environment of `labelling/` can import this part."""
