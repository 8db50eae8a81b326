"""The record of a run, its state while it is not done, and where its numbers come from."""
