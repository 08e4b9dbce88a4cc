"""The comparison lab: a grid of methods, labels and seeds, its tables and its figures. Needs the extra `lab` to draw."""
