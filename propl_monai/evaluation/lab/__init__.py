"""The comparison lab: methods × labelled fractions × seeds, with tables, figures and panels. Needs the extra `lab` to draw.

In: a bundle, a datalist, and the finished runs below a folder (run.json and cases.csv). Out: tables, figures, pictures.
Must not know: how a method trains; the bundle's commands do, in processes of their own.

Tested elsewhere: `comparison` and `render` by `test_tables`, `plots` by `test_figures`; `one_run` and `run_results`
by `test_run_grid`.
"""
