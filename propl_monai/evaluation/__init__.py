"""How good it is: metrics, tables with intervals, calibration, panels, the lab that compares methods, and reports.

In: weights, datalists with masks, run.json of earlier runs. Out: tables, figures, pages.
Must not know: how a bundle is published or served.
"""
