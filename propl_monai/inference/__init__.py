"""From a picture to a mask: the predictor, whole folders, measurements, and the bundle's inference through MONAI.

In: pictures and weights. Out: masks, maps, overlays, measurements.csv, run.json.
Must not know: labels, datalists, or how the weights came about.

Tested elsewhere: `decoding` by `test_inferer`.
"""
