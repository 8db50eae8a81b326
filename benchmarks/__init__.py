"""How fast the suite is, beside plain PyTorch, scikit-image and Python loops: `python -m benchmarks`."""
