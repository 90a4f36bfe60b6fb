"""Plans the form of new music before a note is written: which sections come, what comes back, who plays.

A real form whose opening is most like the song so far is laid over it, and the new music goes on as that form went on;
its sources are mapped onto the song's phrases and onto planned ones. Knows rows, forms and plans; knows no network and
no files but the shipped shelf.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from . import form_shelf, phrases
from .errors import BadInput
from .form_facts import Form, SongForm, empty_fields, song_form
from .form_letters import form_of_letters, parse_form
from .form_material import Material, Span
from .form_plan import HARMONY, NEW, SAME, TRANSITIONS, FormPlan, PlannedPhrase, SongPhrase
from .form_shelf import Shelf
from .form_telling import Telling, coming_phrases, kind_of, shared_out
from .roles import DRUMS, ROLES
from .sections import letter, letter_number
from .tokens import BAR

LEADS_TO = ("ending", "song", "loop", "open")
_NEAREST = 16  # forms among which a seed chooses
_GOES_ON_FROM = 0.4  # likeness of the song's last phrase to its source from which the section is finished as it was
_TOLD = 0.85  # how much a new phrase's density is the form's, rather than what its voices usually play
_FURTHER = 1.5  # how much further apart densities are asked for than the form has them: what is written strays less
_JOINED_AT = 0.4  # after what part of a form a further one is joined
_MOST_SECTIONS = 10  # from which on further new sections are those that came before


def plan_form(
    rows: np.ndarray,
    voices: np.ndarray,
    playing: frozenset[int],
    beats: np.ndarray,
    seconds: np.ndarray,
    before: int,
    new: int,
    leads_to: str,
    seed: int,
    form: str | None = None,
    shelf: Shelf | None = None,
) -> FormPlan:
    """Plan bars [before, before + new) of a song that goes on.

    `rows` (n, 8) are its notes before the new music, bars from 0; `voices` (v, 2) the (program, instance) of each
    voice; `playing` the indexes of those that may play; `beats` and `seconds` (bars,) the lengths of all bars, those to
    come too; `leads_to` one of LEADS_TO; `form` letters of sections such as "A B A C A", None: as the shelf's forms
    go on. The same seed gives the same plan. Raises BadInput for a `form` that is none or has more sections than bars.
    """
    rng = np.random.default_rng(seed)
    offset = max(0, before - phrases.MOST_BARS)
    own = rows[(rows[:, BAR] >= offset) & (rows[:, BAR] < before)].copy()
    beats, seconds = np.asarray(beats, float)[: before + new], np.asarray(seconds, float)[: before + new]
    song = None
    if before and len(own):
        inside = own.copy()
        inside[:, BAR] -= offset
        song = song_form(inside, voices, beats[offset:before], seconds[offset:before])
    material = Material.of(song, offset, own, voices, playing, beats, seconds)
    size = phrases.phrase_bars(seconds[offset:before] if before else seconds[before:])
    planner = _Planner(material, before, rng, shelf)
    if form is not None:
        names = parse_form(form)
        planner.spans = coming_phrases(song, before, new, size, least=len(names))
        planner.tell_letters(names)
    else:
        planner.spans = coming_phrases(song, before, new, size)
        planner.tell(leads_to)
    return FormPlan(_song_phrases(song, offset), tuple(material.planned), seed)


def _song_phrases(song: SongForm | None, offset: int) -> tuple[SongPhrase, ...]:
    if song is None:
        return ()
    named = zip(song.phrases, song.sections.letters, strict=True)
    return tuple(SongPhrase(p.first_bar + offset, p.bars, name) for p, name in named)


@dataclass
class _Planner:
    """Plans phrase after phrase into `material.planned`."""

    material: Material
    before: int
    rng: np.random.Generator
    shelf: Shelf | None
    spans: list[tuple[int, int]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)  # forms already told
    next_section: int = 0
    rank: np.ndarray | None = None  # in which order voices come and leave in this section
    left_off: int | None = None  # bar after the source of the latest phrase

    @property
    def song(self) -> SongForm | None:
        return self.material.song

    def tell(self, leads_to: str) -> None:
        """Go on as the shelf's forms do, one after another."""
        self.next_section = int(self.song.form.section.max(initial=-1)) + 1 if self.song else 0
        telling = self._choose(0)
        finish = self._finishing()
        for slot, (bar, bars) in enumerate(self.spans):
            # a form's last phrase is its ending; a song that is to go on does without
            if telling.at(slot) >= len(telling.form) - 1:
                telling = self._choose(slot)
            if leads_to == "ending" and slot == len(self.spans) - 1 and self.song:
                self._add(self._last(telling, slot, bar, bars))
            elif slot < len(finish):
                self._add(self._finished(finish[slot], telling, slot, bar, bars))
            else:
                self._add(self._told(telling, slot, bar, bars))
        if leads_to == "loop":
            self._lead_back()

    def tell_letters(self, names: list[int]) -> None:
        """Go on with sections of these numbers."""
        forms = [(form, opening) for form, opening, _ in self._nearest]
        form = form_of_letters(names, self.song.form if self.song else None, len(self.spans), forms, self.rng)
        opening = len(form) - len(self.spans)
        same = {i: i for i in range(max(opening, int(form.section.max(initial=0)) + 1))}
        telling = Telling(form, opening, 0, {i: i for i in range(opening)}, same)
        for slot, (bar, bars) in enumerate(self.spans):
            self._add(self._told(telling, slot, bar, bars, keep_section=True))

    def _add(self, phrase: PlannedPhrase) -> None:
        self.material.planned.append(phrase)

    # ---- which form -------------------------------------------------------------------------------------------------

    @cached_property
    def _nearest(self) -> list[tuple[Form, int, float]]:
        shelf = self.shelf if self.shelf is not None else form_shelf.shipped()
        own = self.song.form if self.song else Form(**empty_fields(0))
        found = [(shelf.forms[i], opening, distance) for i, opening, distance in shelf.alike(own, _NEAREST)]
        if not found:
            raise BadInput("The shelf of forms is empty; make one with benchmarks/build_forms.py.")
        return found

    def _choose(self, slot: int) -> Telling:
        """Another form from `slot` on; near ones are likelier."""
        nearest = [entry for entry in self._nearest if id(entry[0]) not in self.chosen] or self._nearest
        worth = np.exp(-np.array([distance for _, _, distance in nearest]))
        worth = worth / worth.sum() if worth.sum() > 0 else np.full(len(nearest), 1 / len(nearest))
        form, opening, _ = nearest[int(self.rng.choice(len(nearest), p=worth))]
        self.chosen = [*self.chosen, id(form)][-_NEAREST + 1 :]
        if slot:  # songs return more the longer they are: no form is begun again where it has hardly begun
            opening = min(max(opening, int(_JOINED_AT * len(form))), len(form) - 2)
        return Telling(form, max(1, opening), slot)

    # ---- one phrase -------------------------------------------------------------------------------------------------

    def _told(self, telling: Telling, slot: int, bar: int, bars: int, keep_section: bool = False) -> PlannedPhrase:
        """The phrase at `slot` as the form has it."""
        form, p = telling.form, telling.at(slot)
        kind = kind_of(float(form.likeness[p]), form.of_role[p], float(form.harmony[p]))
        source = None if kind == NEW or form.source[p] < 0 else self._source_bar(telling, p, slot, bar, bars)
        if source is None:
            self.left_off = None
            return self._new(telling, p, bar, bars, keep_section)
        self.left_off = source + bars
        source = self.material.original(source, bars)
        section = self._section(telling, p, None if keep_section else source, float(form.likeness[p]))
        return self._returning(form, p, source, section, bar, bars)

    def _returning(self, form: Form, p: int, source: int, section: int, bar: int, bars: int) -> PlannedPhrase:
        there = self.material.span(source, bars)
        likeness, notes = float(form.likeness[p]), self.material.notes_by_role(source, bars)
        of_role = shared_out(likeness, form.of_role[p], notes)
        kind = kind_of(likeness, of_role, float(form.harmony[p]))
        if kind == NEW:  # its backing stands less here than in the form
            kind = HARMONY
        if kind == SAME:
            here = Span(there.plays & self.material.playing, there.density, there.loudness, there.register)
        else:
            here = self._moved(form, p, there)
        return self._phrase(form, p, kind, source, section, here, bar, bars, of_role)

    def _moved(self, form: Form, p: int, there: Span) -> Span:
        """A source's span changed as the form changes its own source."""
        s = max(0, int(form.source[p]))
        present = form.voices > 0
        change = np.where(present, form.shares[p] - form.shares[s], np.nan)
        shares = self.material.shares(there.plays) + change
        plays = self.material.voices(there.plays, shares, self._rank(form, p), self.rng)
        low, high = zip(*self.material.range, strict=True)
        density = there.density * 2.0 ** float(np.clip(_FURTHER * (form.density[p] - form.density[s]), -2, 2))
        loudness = there.loudness + form.loudness[p] - form.loudness[s]
        register = there.register + form.register[p] - form.register[s]
        return Span(plays, *(float(v) for v in np.clip((density, loudness, register), low, high)))

    def _new(self, telling: Telling, p: int, bar: int, bars: int, keep_section: bool) -> PlannedPhrase:
        """A phrase without a source: voices as in that phrase of the song which is most like it in the form."""
        form, material = telling.form, self.material
        base = self._like_in_song(form, p)
        shares = np.where((form.voices > 0) & material.playing.any(), form.shares[p], np.nan)
        plays = material.voices(base, shares, self._rank(form, p), self.rng)
        usual = material.usual
        told = usual[0] * 2.0 ** float(np.clip(_FURTHER * form.density[p], -3, 3))
        figures = (
            told**_TOLD * material.load(plays) ** (1 - _TOLD),
            usual[1] + form.loudness[p],
            usual[2] + form.register[p],
        )
        low, high = zip(*material.range, strict=True)
        here = Span(plays, *(float(v) for v in np.clip(figures, low, high)))
        section = self._section(telling, p, None, 0.0)
        return self._phrase(form, p, NEW, None, section, here, bar, bars)

    def _rank(self, form: Form, p: int) -> np.ndarray:
        """In which order voices come and leave, (voices,): the common ones first, drawn once a section."""
        if self.rank is None or form.border[p]:
            presence = self.material.presence
            self.rank = presence + self.rng.random(len(presence))
        return self.rank

    def _like_in_song(self, form: Form, p: int) -> np.ndarray:
        """Voices (voices,) of the song's phrase whose roles and density are most like those of the form's phrase."""
        song = self.song
        if song is None or not song.plays.any():
            return self.material.playing
        both = (form.voices > 0) & (song.form.voices > 0)
        far = np.abs(song.form.shares - form.shares[p])[:, both].sum(1) + 0.5 * np.abs(
            song.form.density - form.density[p]
        )
        far = far + 0.3 * self.rng.random(len(far)) + 9 * ~(song.plays & self.material.playing).any(1)
        return song.plays[int(far.argmin())]

    def _phrase(
        self,
        form: Form,
        p: int,
        kind: str,
        source: int | None,
        section: int,
        here: Span,
        bar: int,
        bars: int,
        of_role: np.ndarray | None = None,
    ) -> PlannedPhrase:
        told = np.full(len(ROLES), np.nan) if of_role is None else of_role
        return PlannedPhrase(
            first_bar=bar,
            bars=bars,
            section=letter(section),
            kind=kind,
            source_bar=source,
            voices=tuple(np.flatnonzero(here.plays).tolist()),
            density=max(0.0, here.density),
            loudness=float(np.clip(here.loudness, 0, 127)),
            register=float(np.clip(here.register, 0, 127)),
            likeness=None if kind == NEW else round(float(form.likeness[p]), 3),
            likeness_of={role: round(float(told[i]), 2) for i, role in enumerate(ROLES) if not np.isnan(told[i])},
            transition=self._transition(form, p, here.plays),
        )

    def _transition(self, form: Form, p: int, plays: np.ndarray) -> str:
        """As in the form, where a section begins (a crash) or ends there."""
        name = TRANSITIONS[int(form.transition[p])]
        drums = bool((plays & (self.material.roles == DRUMS)).any())
        at_end = p + 1 >= len(form) or bool(form.border[p + 1])
        wanted = bool(form.border[p]) if name == "crash" else at_end
        return name if wanted and (drums or name not in ("fill", "crash")) else ""

    # ---- sources and sections ---------------------------------------------------------------------------------------

    def _source_bar(self, telling: Telling, p: int, slot: int, bar: int, bars: int) -> int | None:
        """Where the source of the form's phrase lies in the result; None where there is nothing that fits."""
        form, material = telling.form, self.material
        s, shift = int(form.source[p]), int(form.shift[p])
        if telling.goes_on[p] and self.left_off is not None and material.fits(self.left_off, bar, bars):
            return self.left_off
        if s >= telling.opening:
            first, length = self.spans[telling.first + s - telling.opening]
            for at in (first + min(shift, length - 1), first):
                if material.fits(at, bar, bars):
                    return at
            s = min(s, telling.opening - 1)
        chosen = self._song_phrase(telling, s, p, bar, bars)
        if chosen is None or self.song is None:
            return None
        telling.mapped[s] = chosen
        first = self.song.phrases[chosen].first_bar + material.offset
        return first + shift if shift and material.fits(first + shift, bar, bars) else first

    def _song_phrase(self, telling: Telling, s: int, p: int, bar: int, bars: int) -> int | None:
        """The song's phrase that stands for phrase `s` of the form's opening."""
        if self.song is None:
            return None
        form, song, own = telling.form, self.song, self.song.form
        firsts = [phrase.first_bar + self.material.offset for phrase in song.phrases]
        fits = np.array([self.material.fits(first, bar, bars) for first in firsts], bool)
        if not fits.any():
            return None
        both = (form.voices > 0) & (own.voices > 0)
        here = np.arange(len(own))
        worth = -1.5 * np.abs(own.shares - form.shares[s])[:, both].sum(1) - 0.5 * np.abs(own.density - form.density[s])
        worth += 1.0 * (own.border == form.border[s]) - 2.0 * np.abs(s / telling.opening - here / len(own))
        worth += 0.3 * self.rng.random(len(own))
        worth -= 0.7 * (here + telling.run(p) - len(own)).clip(0)  # that there is as much to come back
        for other, song_phrase in telling.mapped.items():  # in the order in which the form has them
            if 0 <= (there := song_phrase + s - other) < len(own):
                worth[there] += 3 / (1 + abs(s - other))
        if (section := telling.sections.get(int(form.section[s]))) is not None:
            worth += 1.5 * (own.section == section)
        return int(np.where(fits, worth, -np.inf).argmax())

    def _section(self, telling: Telling, p: int, source: int | None, likeness: float) -> int:
        """Number of the section of the form's phrase `p`: its source's where it is much like that, else what that of
        the form stands for."""
        theirs = int(telling.form.section[p])
        if source is not None and likeness >= 0.5:
            telling.sections[theirs] = self._section_at(source)
        if theirs in telling.sections:
            return telling.sections[theirs]
        opening = np.flatnonzero(telling.form.section[: telling.opening] == theirs)
        if len(opening) and self.song is not None:  # of the song
            same = round(int(opening[-1]) / telling.opening * len(self.song.form))
            number = int(self.song.form.section[min(same, len(self.song.form) - 1)])
        elif self.next_section < _MOST_SECTIONS:
            number, self.next_section = self.next_section, self.next_section + 1
        else:
            number = int(self.rng.integers(self.next_section))
        telling.sections[theirs] = number
        return number

    def _section_at(self, bar: int) -> int:
        for phrase in self.material.planned:
            if phrase.first_bar <= bar < phrase.first_bar + phrase.bars:
                return letter_number(phrase.section)
        if self.song is None:
            return 0
        firsts = [phrase.first_bar + self.material.offset for phrase in self.song.phrases]
        return int(self.song.form.section[max(0, int(np.searchsorted(firsts, bar, "right")) - 1)])

    # ---- the seam and the end ---------------------------------------------------------------------------------------

    def _finishing(self) -> list[int]:
        """Bars at which the sources of the first planned phrases begin, where the song was cut off in a section that
        it had before: it goes on as it went on there, to that section's end."""
        song = self.song
        if song is None or len(song.form) < 2:
            return []
        last, own = len(song.form) - 1, song.form
        if own.source[last] < 0 or own.likeness[last] < _GOES_ON_FROM:
            return []
        source = int(own.source[last])
        at = song.phrases[source].first_bar + int(own.shift[last]) + song.phrases[last].bars + self.material.offset
        found: list[int] = []
        for bar, bars in self.spans[:4]:
            within = self.before - at >= bars and (len(found) == 0 or not self._begins(at))
            if not within or not self.material.fits(at, bar, bars) or (not found and self._begins(at)):
                break
            found.append(at)
            at += bars
        return found

    def _begins(self, bar: int) -> bool:
        """Whether a section of the song begins at a bar."""
        if self.song is None:
            return False
        return any(
            p.first_bar + self.material.offset == bar and b
            for p, b in zip(self.song.phrases, self.song.form.border, strict=True)
        )

    def _finished(self, source: int, telling: Telling, slot: int, bar: int, bars: int) -> PlannedPhrase:
        """A phrase that goes on as the song went on where it was like its last phrase: as like as that is."""
        song = self.song
        if song is None:  # not reached: what is finished is the song's
            return self._told(telling, slot, bar, bars)
        last, form = len(song.form) - 1, song.form
        kind = kind_of(float(form.likeness[last]), form.of_role[last], float(form.harmony[last]))
        there = self.material.span(source, bars)
        here = Span(there.plays & self.material.playing, there.density, there.loudness, there.register)
        self.left_off = source + bars
        section = int(form.section[last])
        telling.sections.setdefault(int(telling.form.section[telling.at(slot)]), section)
        return self._phrase(form, last, kind, source, section, here, bar, bars, form.of_role[last])

    def _last(self, telling: Telling, slot: int, bar: int, bars: int) -> PlannedPhrase:
        """The ending: of the section that the song has most of, its harmony, and all who play there."""
        song = self.song
        if song is None:
            return self._told(telling, slot, bar, bars)
        main = int(np.bincount(song.form.section).argmax())
        firsts = [
            p.first_bar + self.material.offset
            for p, s in zip(song.phrases, song.form.section, strict=True)
            if s == main
        ]
        fitting = [first for first in firsts if self.material.fits(first, bar, bars)]
        if not fitting:
            return self._told(telling, slot, bar, bars)
        there = self.material.span(fitting[-1], bars)
        here = Span(
            self.material.some(there.plays & self.material.playing, there.plays),
            there.density,
            there.loudness,
            there.register,
        )
        phrase = self._phrase(song.form, len(song.form) - 1, HARMONY, fitting[-1], main, here, bar, bars)
        return replace(phrase, likeness=None, transition="")

    def _lead_back(self) -> None:
        """The last phrase of a loop leads to bar 0: with a fill where there are drums."""
        last = self.material.planned[-1]
        if last.kind != SAME and any(self.material.roles[v] == DRUMS for v in last.voices):
            self.material.planned[-1] = replace(last, transition="fill")
