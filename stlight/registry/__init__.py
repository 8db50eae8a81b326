"""Tables of what the suite knows by name: data sets, models, metrics. Nothing in this room imports torch or another room.

Each thing is one entry, added by hand: names are never collected by scanning files.
"""
