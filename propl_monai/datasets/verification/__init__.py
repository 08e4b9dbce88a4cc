"""Verification: every file of a datalist is decoded once and every fault is named; a record says that this was done.

    verification = verify_datalist(Path("datalist.json"))  # of `verify`
    print(verification.to_text())

No file of the user is changed; the record is a file of its own. `findings.CODES` lists what is looked for.

In: a datalist. Out: findings and a record. Must not know: what the data are used for.

Tested elsewhere: `file_checks` and `findings` by `test_verify` and `test_damaged_data`.
"""
