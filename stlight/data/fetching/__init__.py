"""Download, unpack and verify the benchmark's files."""
