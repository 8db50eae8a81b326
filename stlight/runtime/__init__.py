"""The process and its files: atomic writes, locks, leases of GPUs, signals."""
