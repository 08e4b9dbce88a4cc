"""What the app is made of: one network for all entries, and an entry a task for predicting, training and ranking."""
