"""Hearts and cines: the left ventricle cut into discs, its ejection fraction, its phases, and masks that do not jitter.

In: masks or probabilities of frames in order. Out: volumes, ejection fraction, curves, steadier probabilities.
Must not know: how the masks came about, but for `heart`, which asks the predictor for them.
"""
