"""The data sets that can be read, one file each: from a folder on disk to what is in it. `registry` lists them.

In: the folder of a data set as its publishers lay it out. Out: cases with tasks, groups and pixel sizes.
Must not know: splits, or where prepared files go.

Tested elsewhere: `base`, `listing`, `table` and `registry` by the tests of every source; `camus_split` by `test_camus`,
`ddti_marks` by `test_ddti`.
"""
