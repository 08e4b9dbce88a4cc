"""Evaluation: metrics, tables with intervals, calibration, panels, the lab that compares methods, and reports.

In: predictions with reference masks, weights and datalists, finished runs. Out: tables, figures, pages.
Must not know: how a bundle is published or served.

Tested elsewhere: `figure_style` and `panels` by the tests of the lab's figures and panels.
"""
