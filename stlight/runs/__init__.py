"""What a run leaves behind: its record, its state, and where its numbers come from."""
