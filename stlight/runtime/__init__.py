"""The process and its files: atomic writes, run lock, GPU lease, signals, fast start."""
