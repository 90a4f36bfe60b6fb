"""Networks of other kinds that are trained and judged as midiex's own is; only their trunks differ (sizes.py)."""
