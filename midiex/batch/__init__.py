"""Many songs at once: what there is to do, workers that may die, one manifest of what was done.

    inputs ──▶ plan ──▶ workers (isolated.py here, cluster.py on many machines) ──▶ outputs, then manifest
                 ▲                                                                             │
                 └────────────────── what is done already is not done again ◀──────────────────┘

A worker (worker.py) is a process of its own that is given one job after another and is replaced when it dies, takes too
long or needs too much memory; whatever a file does to it, the others go on.
"""
