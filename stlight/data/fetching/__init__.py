"""Downloading the benchmark's files, unpacking and verifying them."""
