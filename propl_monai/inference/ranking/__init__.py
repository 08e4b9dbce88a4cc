"""`propl rank`: pictures without labels, in the order in which labels would help most.

In: pictures, a predictor, the name of a strategy. Out: a table of ranks. Must not know: masks, datalists, training.
"""
