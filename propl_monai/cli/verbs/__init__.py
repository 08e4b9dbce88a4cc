"""The verbs of `propl`, each a few lines that call the package; `propl_monai.cli` gathers them."""
