"""An interpolated n-gram over note rows: what counting alone achieves, the baseline the network has to beat.

It takes the network's decisions (HEAD_ORDER) one by one, so that nats a note compare. Each decision interpolates
relative frequencies in contexts from general to specific: of the notes before, of the voice, of what stood at this
place of the bar last time. How far a context is trusted depends on how often it was seen and with how many values,
learned on songs that were not counted: deleted interpolation (Jelinek and Mercer 1980), the contexts in buckets (Chen
and Goodman 1999). The adaptive variant goes on with contexts that count the song itself up to the note in question, as
PPM does (Cleary and Witten 1984).
Knows rows and shards; knows no network.

contexts.py says what is decided and in which contexts, surroundings.py what is around each note, decisions.py which
decisions a music is; counting.py counts values in contexts and mixes what they say; training.py draws songs and learns
from them, model.py is the n-gram, and writing.py writes with it.
"""

from .model import NGram

__all__ = ["NGram"]
