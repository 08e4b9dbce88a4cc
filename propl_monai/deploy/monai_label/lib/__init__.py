"""The parts of the app: one network for all entries; prediction, training and ranking, one entry per task."""
