"""How good is the music? Figures for what a model writes, beside loops, an n-gram and the real continuation.

Each figure is pure functions on excerpts (excerpts.py); run.py makes the excerpts and page.py shows what came out.
"""
