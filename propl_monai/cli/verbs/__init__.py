"""The verbs of `propl`, each a few lines that call the package; `propl_monai.cli` gathers them.

Tested elsewhere: `quickstart` by `cli/test_quickstart`; `data`, `hearts`, `lab`, `rank`, `runs` and `share` by
`cli/test_cli`, `test_commands` and the tests of what they call.
"""
