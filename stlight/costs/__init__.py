"""Cost of runs: estimated before they start, or measured side by side. Importing this room does not load torch."""
