"""What runs cost: timed side by side, reckoned beforehand. Importing this room loads no torch."""
