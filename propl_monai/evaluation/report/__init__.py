"""`propl report`: one HTML page of a training and its evaluation, with nothing outside of it.

In: a run's folder, its weights, and the data if pictures are wanted. Out: one page.
Must not know: other runs; those are the lab's.
"""
