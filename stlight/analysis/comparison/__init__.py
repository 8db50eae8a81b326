"""Compare two folders of results: numbers that agree to the bit, within noise or not at all, and causes."""
