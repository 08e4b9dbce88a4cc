"""Ultrasound-like pictures with exact masks for all eight tasks: for the quick start, tests and CI, not for science.

Tasks share pictures, so that a network has to read the prompt: one picture of the heart serves left atrium, left
ventricle and myocardium; one obstetric picture serves fetal head and ovarian tumour; one split-screen picture of the
small parts, thyroid on one side and breast on the other, serves breast cancer, thyroid gland and thyroid nodule.

In: a folder, numbers of cases, a seed. Out: a data set in the plain layout. Must not know: any real data.

Tested elsewhere: `anatomy`, `phantom` and `physics` by `test_write_phantoms`.
"""
