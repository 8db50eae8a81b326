"""Download, unpack and verify the benchmark's files. Nothing here affects the numbers of a run."""
