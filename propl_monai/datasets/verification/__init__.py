"""Verification: every file of a datalist is decoded once and every fault is named; a record says that this was done.

    verification = verify_datalist(Path("datalist.json"))  # of `verify`
    print(verification.to_text())

No file of the user is changed; the record is a file of its own. `findings.CODES` lists what is looked for.
"""
