"""The process and its files: atomic writes, run lock, GPU lease, signals, start-up."""
