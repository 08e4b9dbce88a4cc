"""Masks in the formats that other programs open: one file each, listed in `registry`.

In: the masks of one input file, and the place of its pixels. Out: bytes of files, and what a file for the whole folder says
of this input. Must not know: networks, the output folder, the journal.

A format is a subclass of `Format` (`base`). Packages beyond those that every installation has come with the extra `formats`,
and are loaded when the format is asked for.

Tested elsewhere: `base` by `test_registry`.
"""
