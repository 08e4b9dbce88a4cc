"""The figures of a model card, all measured from weights and pictures by one command: `propl card`.

In: weights, a datalist with their test split, pictures from elsewhere. Out: card.json, card.md, the tables of cases.
Must not know: how weights were trained.

Tested elsewhere: `score`, `render` and `write` by `test_card`.
"""
