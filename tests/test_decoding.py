"""Writing a chunk: the cached steps equal the forward pass, choices keep to masks and odds, the seed decides,
and what stands already stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import lively_model, random_rows, tiny_config
from songs import bars_of_4_4, network_alone, programs_in, talkative_model, told_of

from midiex import aligned, collate, onnx_stepper, windows
from midiex.chunks import MAX_CHUNK_NOTES, likeness_set, row_times
from midiex.conditions import LIKENESS, VOICE_INSTANCES, VOICE_SLOTS
from midiex.config import GenerateConfig, MemoryConfig
from midiex.constraints import Grammar
from midiex.decoding import Candidate, Task, write_chunk
from midiex.echoes import Listener
from midiex.errors import MissingPart
from midiex.habits import CONTEXTS, FIRST_CONTEXT, HABITS, STAYS, SYMBOLS, Evidence, Habits
from midiex.model import NOTHING, OPENING, RECALLED, RECENT, SOURCE, STANDING, SUMMARY, Batch, ChunkTransformer
from midiex.occurrences import bucket_of
from midiex.planner import Plan, Planner
from midiex.recalled import Recalled
from midiex.roles import BASS, DRUMS, LEAD
from midiex.sampling import pick
from midiex.steering import Asked
from midiex.stepper import Memory
from midiex.tokens import (
    BAR,
    DRUM_PROGRAM,
    FIELD_SIZES,
    HEAD_ORDER,
    INSTANCE,
    MICRO,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    moved,
    row_key,
    sort_rows,
)

SONG_BARS = 40  # of two seconds: ten chunks of four bars
PLAIN = GenerateConfig(temperature=1, top_p=1, min_p=0, candidates=4, habits=0, aligned=0, engine="torch")
DRAWS = 20_000
Planned = tuple[ChunkTransformer, Task, Memory]


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    """The last chunk repeats the fourth, so that the fifth is what will be recalled."""
    rows = random_rows(np.random.default_rng(5), 200, SONG_BARS)
    again = rows[(rows[:, BAR] >= 12) & (rows[:, BAR] < 16)]
    again[:, BAR] += SONG_BARS - 16
    return np.concatenate([rows[rows[:, BAR] < SONG_BARS - 4], again])


def plan(model: ChunkTransformer, song: np.ndarray, memory: MemoryConfig) -> tuple[Planner, Task, Memory]:
    bars, grammar, none = bars_of_4_4(SONG_BARS + 10), Grammar.of(song, SONG_BARS), song[:0]
    planner = Planner(model, memory, Plan(bars, SONG_BARS, 10, song, none, none, grammar, "ending"))
    task = planner.next_task()
    assert task is not None
    return planner, *task


@dataclass(frozen=True)
class Shown:
    """Rows that a chunk may look at beside the memory of its song, bars counted from their first."""

    rows: np.ndarray
    first_bar: int
    kind: int


def teacher_forced(
    model: ChunkTransformer,
    planner: Planner,
    task: Task,
    rows: np.ndarray,
    shown: Sequence[Shown] = (),
    said: aligned.Evidence | None = None,
) -> np.ndarray:
    """Nats of every decision, shape (n + 1, 8): the chunk as the target of a training batch, with the memory layout
    that training uses for a chunk at this place of a song, and what else is `shown` and `said` by a source."""
    known = [chunk.rows for chunk in planner.chunks]
    first_bars = [chunk.first_bar for chunk in planner.chunks] + [task.first_bar]
    chunks = [
        windows.WindowChunk(r, b, 4, np.zeros(0), np.zeros(0), 8.0, 16.0, np.zeros(0), likeness_set(r))
        for r, b in zip([*known, rows], first_bars, strict=True)
    ]
    full, summaries = collate.memory_slots(chunks, len(known), 0, planner.memory, None)
    for more in shown:
        full.append((len(chunks), more.kind))
        chunks.append(replace(chunks[0], rows=more.rows, first_bar=more.first_bar))
    heard = collate.step_echoes([*known, rows], first_bars)[-1]
    if said is not None:
        heard[:, -2:] = said.echoes
    habits = steps_note_by_note(moved(rows, task.first_bar), Habits(task.recalled.habits), task.first_bar)
    times = []
    for chunk in chunks:
        times.append(row_times(moved(chunk.rows, chunk.first_bar), planner.bars.beat_starts))
    batch = Batch(
        rows=torch.from_numpy(np.concatenate([c.rows for c in chunks]).astype(np.int64)),
        lengths=torch.tensor([len(c.rows) for c in chunks]),
        times=torch.from_numpy(np.concatenate(times)),
        starts=torch.tensor(
            [[planner.bars.beat_starts[c.first_bar], c.first_bar] for c in chunks], dtype=torch.float32
        ),
        window=torch.zeros(len(chunks), dtype=torch.int64),
        target=torch.tensor([len(known)]),
        conditions=torch.from_numpy(task.conditions)[None],
        programs=torch.from_numpy(task.programs)[None],
        full=torch.tensor([[i for i, _ in full] + [-1]]),
        full_kind=torch.tensor([[kind for _, kind in full] + [NOTHING]]),
        summaries=torch.tensor([[i for i, _ in summaries]]),
        summary_kind=torch.tensor([[kind for _, kind in summaries]]),
        echoes=torch.from_numpy(heard),
        habit_share=torch.from_numpy(habits.share),
        habit_bucket=torch.from_numpy(habits.bucket),
        habit_level=torch.from_numpy(habits.level),
        source=torch.zeros(1, dtype=torch.int64),
        voices=None if task.voices is None else torch.from_numpy(task.voices)[None],
        aligned_share=None if said is None else torch.from_numpy(said.share),
        aligned_bucket=None if said is None else torch.from_numpy(said.bucket),
    )
    with torch.inference_mode():
        return model(batch).double().numpy()


def steps_note_by_note(rows: np.ndarray, growing: Habits, first_bar: int) -> Evidence:
    """`step_habits` of a chunk whose own notes are not counted."""
    shape = (len(rows) + 1, CONTEXTS)
    found = Evidence(np.zeros(shape, np.float32), *(np.zeros(shape, np.int64) for _ in range(2)))

    def look(step: int, name: int, row: list[int], value: int) -> None:
        told = told_of(growing, name, row)
        for context, (symbols, start) in enumerate(growing.seen(name, told) if told else (), FIRST_CONTEXT[name]):
            seen = sum(symbols.values())
            found.share[step, context] = symbols.get((value - start) % SYMBOLS, 0) / max(1, seen)
            found.bucket[step, context] = bucket_of(np.array(seen), np.array(len(symbols)))
        contexts = slice(FIRST_CONTEXT[name], FIRST_CONTEXT[name] + len(HABITS[name]))
        found.level[step, contexts] = growing.levels(name)

    for number, row in enumerate(rows.tolist()):
        if number:
            look(number, BAR, row, int(row[BAR] == rows[number - 1, BAR]))
        look(number, POSITION, row, row[POSITION])
        for name in HEAD_ORDER[:-2]:
            look(number + 1, name, row, row[name])
        growing.hear(row, count=False)
    if len(rows):
        look(len(rows), BAR, rows[-1].tolist(), 1 - STAYS)
    return found


# ---- the cached steps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lively_model, talkative_model])
def test_cached_steps_equal_the_forward_pass(make, song: np.ndarray) -> None:  # noqa: ANN001
    config = tiny_config()
    model, memory = make(config), replace(config.memory, summary_chunks=3)  # fewer than there are older chunks
    planner, task, remembered = plan(model, song, memory)
    assert len(planner.chunks) == 10
    candidates = write_chunk(model, remembered, task, PLAIN, np.random.default_rng(0), weigh=True)
    finished = [c for c in candidates if c.finished]
    assert len(finished) >= 2 and len({len(c.rows) for c in finished}) >= 2  # some run on beside finished ones
    for candidate in finished:
        losses = teacher_forced(model, planner, task, candidate.rows)
        assert losses.sum() / len(candidate.rows) == pytest.approx(candidate.nll, abs=1e-4)


def remembered_with(
    model: ChunkTransformer, planner: Planner, task: Task, shown: Sequence[Shown]
) -> tuple[Memory, set[int]]:
    """The memory of the song's next chunk with what else is shown to it, and the kinds of its rows."""
    given: list[tuple[torch.Tensor, ...]] = []
    inner = model.remember
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(model, "remember", lambda *rows: given.append(rows) or inner(*rows))
        planner._memory(False, None)
    parts, starts = [given[-1]], planner.bars.beat_starts
    with torch.inference_mode():
        for more in shown:
            times = torch.from_numpy(row_times(moved(more.rows, more.first_bar), starts))
            start = torch.tensor([[starts[more.first_bar], more.first_bar]], dtype=torch.float32)
            rows = torch.from_numpy(more.rows.astype(np.int64))
            encoded, encoded_times, _ = model.encode(rows, torch.tensor([len(rows)]), times, start)
            parts.append((encoded, encoded_times, torch.full((len(encoded),), more.kind)))
        together = [torch.cat(columns) for columns in zip(*parts, strict=True)]
        return inner(*together), set(together[2].tolist())


def going_back(task: Task, source: np.ndarray) -> tuple[Task, np.ndarray, int]:
    """The task, told to be more or less like a source by role, and with voices; and the source's bins, and of all."""
    roles = {(0, 0): LEAD, (40, 0): BASS, (40, 1): BASS, (DRUM_PROGRAM, 0): DRUMS}
    told = task.conditions.copy()
    told[LIKENESS:] = 4, 7, 2, 0, 6
    bins, overall = aligned.told_bins(source, told[LIKENESS:], roles), int(told[LIKENESS])
    assert len(set(bins.tolist())) == 4
    voices = np.zeros(VOICE_SLOTS, np.float32)
    voices[[0, 40 * VOICE_INSTANCES, 40 * VOICE_INSTANCES + 1]] = 1
    follow = aligned.AlignedSource(source, bins, overall)
    return replace(task, conditions=told, voices=voices, source=follow), bins, overall


@pytest.fixture(scope="module")
def source(song: np.ndarray) -> np.ndarray:
    """The song's second chunk, with more notes on its beats."""
    rows = moved(song[(song[:, BAR] >= 4) & (song[:, BAR] < 8)], -4)
    more = random_rows(np.random.default_rng(8), 60, 4)
    more[:, POSITION] = more[:, POSITION] // 12 * 12
    return sort_rows(np.concatenate([rows, more]))


@pytest.mark.parametrize("engine", ["torch", "onnx"])
@pytest.mark.parametrize("make", [lively_model, talkative_model])
def test_cached_steps_equal_the_forward_pass_with_a_source_and_voices_that_stand(
    make, engine: str, song: np.ndarray, source: np.ndarray, monkeypatch: pytest.MonkeyPatch  # noqa: ANN001
) -> None:  # fmt: skip
    """What stands may be looked at in memory, and is woven in."""
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_stepper, "OnnxStepper", partial(onnx_stepper.OnnxStepper, int8=False))
    config = tiny_config()
    model = make(config)
    planner, task, _ = plan(model, song, config.memory)
    woven, bins, overall = going_back(among(task, song[song[:, BAR] < 4]), source)
    shown = [Shown(source, 4, SOURCE), Shown(woven.fixed, task.first_bar, STANDING)]
    memory, kinds = remembered_with(model, planner, task, shown)
    assert kinds >= {SOURCE, STANDING, RECENT, RECALLED} and len(woven.fixed) >= 5
    settings, kept = replace(PLAIN, engine=engine), set()
    finished = [
        c for c in write_chunk(model, memory, woven, settings, np.random.default_rng(1), weigh=True) if c.finished
    ]
    assert len(finished) >= 2
    for candidate in finished:
        said = aligned.evidence(candidate.rows, source, bins, overall)
        kept |= set(said.bucket[:, HEAD_ORDER.index(PITCH)].tolist())
        losses = teacher_forced(model, planner, woven, candidate.rows, shown, said)
        free = np.array([voice not in STANDING_VOICES for voice in voices_of(candidate.rows)])
        total = losses[1:, :6][free].sum() + losses[:-1, 6:][free].sum() + losses[-1, 6:].sum()
        assert total / max(1, free.sum()) == pytest.approx(candidate.nll, abs=1e-4)
    assert len(kept) > 2  # the source had its say, kept to and not


def test_a_network_that_trusts_its_source_alone_writes_it_again(song: np.ndarray, source: np.ndarray) -> None:
    config = tiny_config()
    model = talkative_model(config)
    with torch.no_grad():
        for gate in model.heads.gate:
            gate.weight.zero_()
            gate.bias[0], gate.bias[-1] = 40.0, 80.0  # where the source says nothing the network decides
    _, task, memory = plan(model, song, config.memory)
    full = replace(task, grammar=Grammar.of(np.concatenate([song, moved(source, SONG_BARS)]), SONG_BARS + 4))
    going, _, _ = going_back(full, source)
    for candidate in write_chunk(model, memory, going, PLAIN, np.random.default_rng(0)):
        there = set(row_key(source).tolist())
        assert len(there & set(row_key(candidate.rows).tolist())) > 0.9 * len(there)


@pytest.mark.parametrize(("int8", "off"), [(False, 1e-4), (True, 0.05)])
def test_steps_in_onnx_equal_the_forward_pass(
    int8: bool, off: float, song: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digits in float32, nearly so in eight bits: on average over networks, as small ones round much."""
    pytest.importorskip("onnxruntime")
    config, errors = tiny_config(), list[float]()
    monkeypatch.setattr(onnx_stepper, "OnnxStepper", partial(onnx_stepper.OnnxStepper, int8=int8))
    settings = replace(PLAIN, engine="onnx")
    for seed in range(4):
        model = talkative_model(config, seed)
        planner, task, remembered = plan(model, song, config.memory)
        candidates = write_chunk(model, remembered, task, settings, np.random.default_rng(0), weigh=True)
        assert max(len(c.rows) for c in candidates) > 20
        for candidate in (c for c in candidates if c.finished):
            losses = teacher_forced(model, planner, task, candidate.rows)
            errors.append(abs(losses.sum() / len(candidate.rows) - (candidate.nll or 0.0)))
    assert len(errors) > 4 and np.mean(errors) < off


def test_a_session_is_made_anew_when_the_weights_change() -> None:
    pytest.importorskip("onnxruntime")
    model = lively_model(tiny_config())
    first = onnx_stepper.session_of(model)
    assert onnx_stepper.session_of(model) is first and onnx_stepper.session_of(model, False) is not first
    first = onnx_stepper.session_of(model)
    with torch.no_grad():
        model.heads.state.weight.mul_(2)
    assert onnx_stepper.session_of(model) is not first


def test_without_onnx_torch_takes_the_steps(song: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    model = lively_model(config)
    _, task, remembered = plan(model, song, config.memory)
    monkeypatch.setattr(onnx_stepper, "is_installed", lambda: False)
    written = [
        [c.rows.tolist() for c in write_chunk(model, remembered, task, settings, np.random.default_rng(0))]
        for settings in (PLAIN, replace(PLAIN, engine="auto"))
    ]
    assert written[0] == written[1]
    with pytest.raises(MissingPart, match="pip install"):
        write_chunk(model, remembered, task, replace(PLAIN, engine="onnx"), np.random.default_rng(0))


def test_the_memory_is_laid_out_as_in_training(song: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above covers every kind of memory; were one missing, it would prove less."""
    model, kinds = talkative_model(), []
    inner = model.remember
    monkeypatch.setattr(model, "remember", lambda *given: kinds.append(given[2]) or inner(*given))
    plan(model, song, MemoryConfig(summary_chunks=3))
    assert set(kinds[0].tolist()) == {RECENT, RECENT + 1, RECALLED, OPENING, SUMMARY}


@pytest.mark.parametrize(
    "what", ["memory", "conditions", "programs", "voices", "source", "first_bar", "heard", "habits"]
)
def test_the_comparison_would_notice(what: str, song: np.ndarray, source: np.ndarray) -> None:
    """Each thing a chunk depends on changes the likelihood by far more than the tolerance."""
    model = lively_model(tiny_config())
    planner, task, remembered = plan(model, song, MemoryConfig())
    other: dict[str, dict[str, object]] = {
        "conditions": {"conditions": (task.conditions + 1) % 5},
        "programs": {"programs": 1 - task.programs},
        "voices": {"voices": going_back(task, source)[0].voices},
        "source": {"source": going_back(task, source)[0].source},
        "first_bar": {"first_bar": task.first_bar + 1},
        "heard": {"heard": Listener()},
        "habits": {"recalled": Recalled(Habits())},
    }
    if what == "memory":
        _, _, remembered = plan(model, song[::2], MemoryConfig())
    changed = replace(task, **other.get(what, {}))  # type: ignore[arg-type]
    candidates = write_chunk(model, remembered, changed, PLAIN, np.random.default_rng(0), weigh=True)
    finished = [c for c in candidates if c.finished]
    totals = [teacher_forced(model, planner, task, c.rows).sum() / len(c.rows) for c in finished]
    assert max(abs(total - c.nll) for total, c in zip(totals, finished, strict=True)) > 1e-2


# ---- writing a chunk -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planned(song: np.ndarray) -> Planned:
    model = talkative_model()
    _, task, memory = plan(model, song, MemoryConfig())
    return model, task, memory


def written(
    planned: Planned, seed: int, config: GenerateConfig = PLAIN, most_notes: int = MAX_CHUNK_NOTES
) -> list[Candidate]:
    model, task, memory = planned
    return write_chunk(model, memory, task, config, np.random.default_rng(seed), most_notes)


def same(a: list[Candidate], b: list[Candidate]) -> bool:
    return [c.rows.tobytes() for c in a] == [c.rows.tobytes() for c in b]


def test_what_is_written_does_not_depend_on_whether_it_is_weighed(planned: Planned) -> None:
    """Weighing asks for every field; writing leaves out those that leave no choice, here the instances."""
    model, task, memory = planned
    grammar = task.grammar.without(
        {(program, number) for program, number in np.argwhere(task.grammar.chord > 0).tolist() if number}
    )
    for seed in range(3):
        plain, weighed = (
            write_chunk(model, memory, replace(task, grammar=grammar), PLAIN, np.random.default_rng(seed), weigh=weigh)
            for weigh in (False, True)
        )
        assert same(plain, weighed) and all(len(c.rows) for c in plain)
        assert all(c.nll is None for c in plain) and all(c.nll is not None for c in weighed)


def test_the_seed_decides(planned: Planned) -> None:
    assert same(written(planned, 3), written(planned, 3))
    assert not same(written(planned, 3), written(planned, 4))
    candidates = written(planned, 3)
    assert len({c.rows.tobytes() for c in candidates}) == len(candidates)  # one seed, but not one chunk four times


def test_rows_keep_to_the_task(planned: Planned, song: np.ndarray) -> None:
    voices = set(map(tuple, song[:, [PROGRAM, INSTANCE]].tolist()))
    for candidate in written(planned, 1, replace(PLAIN, candidates=6)):
        rows = candidate.rows
        assert candidate.finished and rows.dtype == np.int32 and rows.shape[1] == len(FIELD_SIZES)
        assert (np.diff(row_key(rows)) > 0).all()
        assert rows[-1, BAR] == len(planned[1].bar_positions) - 1
        assert set(map(tuple, rows[:, [PROGRAM, INSTANCE]].tolist())) <= voices
        assert (rows >= 0).all() and (rows < np.array(FIELD_SIZES)).all()


def test_a_voice_taken_out_of_the_grammar_is_silent(planned: Planned) -> None:
    model, task, memory = planned
    without = replace(task, grammar=task.grammar.without({(0, 0), (0, 1)}))
    assert 0 in set().union(*(programs_in(c.rows) for c in written(planned, 2)))
    for candidate in write_chunk(model, memory, without, PLAIN, np.random.default_rng(2)):
        assert 0 not in programs_in(candidate.rows) and len(candidate.rows)


def test_the_note_limit_leaves_a_chunk_unfinished(planned: Planned) -> None:
    model, task, memory = planned
    whole = written(planned, 1)
    cut = write_chunk(model, memory, task, PLAIN, np.random.default_rng(1), most_notes=4)
    assert all(len(c.rows) == 4 and not c.finished for c in cut)
    assert all(np.array_equal(c.rows, w.rows[:4]) for c, w in zip(cut, whole, strict=True))


def test_rows_keep_to_the_groove(planned: Planned) -> None:
    model, task, memory = planned
    grooves = np.zeros_like(task.grammar.grooves)
    grooves[0, [0, 8]] = np.arange(8) >= 5  # tuned voices swing, late
    grooves[1, [0, 6], 4] = True
    swung = replace(task, grammar=replace(task.grammar, grooves=grooves))
    rows = np.concatenate([c.rows for c in write_chunk(model, memory, swung, PLAIN, np.random.default_rng(0))])
    drums = (rows[:, PROGRAM] == DRUM_PROGRAM).astype(int)
    assert grooves[drums, rows[:, POSITION] % 12, rows[:, MICRO]].all()
    assert {(d, p) for d, p in zip(drums.tolist(), (rows[:, POSITION] % 12).tolist(), strict=True)} == {
        (0, 0), (0, 8), (1, 0), (1, 6),
    }  # fmt: skip


def test_near_temperature_0_all_candidates_are_the_likeliest(planned: Planned) -> None:
    """By a network alone: of values that the song had equally often none is the likeliest."""
    alone, cold = (network_alone(talkative_model()), *planned[1:]), replace(PLAIN, temperature=1e-7)
    candidates = written(alone, 1, cold, most_notes=40)
    assert len({c.rows.tobytes() for c in candidates}) == 1
    assert same(candidates, written(alone, 2, cold, most_notes=40))


# ---- among rows that stand already -----------------------------------------------------------------------------------

STANDING_VOICES = {(40, 0), (40, 1), (DRUM_PROGRAM, 1)}  # there are free voices before, between and after these


def among(task: Task, rows: np.ndarray, voices: set[tuple[int, int]] = STANDING_VOICES) -> Task:
    """The task of writing the other voices only; of these the rows stand already."""
    standing = np.array([voice in voices for voice in voices_of(rows)], bool)
    return replace(task, grammar=task.grammar.without(voices), fixed=rows[standing])


def voices_of(rows: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(rows[:, PROGRAM].tolist(), rows[:, INSTANCE].tolist(), strict=True))


@pytest.fixture(scope="module")
def fixed_task(planned: Planned, song: np.ndarray) -> Task:
    """The song's second chunk stands, as far as other voices played it."""
    rows = song[(song[:, BAR] >= 4) & (song[:, BAR] < 8)].copy()
    rows[:, BAR] -= 4
    task = among(planned[1], rows)
    assert len(task.fixed) >= 5 and set(voices_of(task.fixed)) == STANDING_VOICES
    return task


def parted(candidate: Candidate) -> tuple[np.ndarray, np.ndarray]:
    """Fixed and free rows."""
    is_fixed = np.array([voice in STANDING_VOICES for voice in voices_of(candidate.rows)], bool)
    return candidate.rows[is_fixed], candidate.rows[~is_fixed]


@pytest.mark.parametrize("seed", range(4))
def test_fixed_rows_stand_among_free_ones(planned: Planned, fixed_task: Task, seed: int) -> None:
    model, _, memory = planned
    for candidate in write_chunk(model, memory, fixed_task, PLAIN, np.random.default_rng(seed)):
        fixed, free = parted(candidate)
        assert candidate.finished and (np.diff(row_key(candidate.rows)) > 0).all()
        assert np.array_equal(fixed, fixed_task.fixed)  # lengths, velocities and offsets too
        assert len(free) and fixed_task.grammar.pitches[tuple(free[:, [PROGRAM, INSTANCE, PITCH]].T)].all()
        assert candidate.rows[-1, BAR] == len(fixed_task.bar_positions) - 1


def test_fixed_rows_ignore_the_groove(planned: Planned, fixed_task: Task) -> None:
    model, _, memory = planned
    grooves = np.zeros_like(fixed_task.grammar.grooves)
    grooves[:, 0, 4] = True
    task = replace(fixed_task, grammar=replace(fixed_task.grammar, grooves=grooves))
    assert (task.fixed[:, POSITION] % 12 != 0).any()
    for candidate in write_chunk(model, memory, task, PLAIN, np.random.default_rng(0)):
        fixed, free = parted(candidate)
        assert np.array_equal(fixed, task.fixed) and len(free)
        assert (free[:, POSITION] % 12 == 0).all() and (free[:, MICRO] == 4).all()


@pytest.mark.parametrize("make", [lively_model, talkative_model])
def test_the_network_is_fed_fixed_rows_and_only_free_decisions_count(make, song: np.ndarray) -> None:  # noqa: ANN001
    config = tiny_config()
    model = make(config)
    planner, task, remembered = plan(model, song, config.memory)
    rows = song[song[:, BAR] < 4]
    candidates = write_chunk(model, remembered, among(task, rows), PLAIN, np.random.default_rng(1), weigh=True)
    finished = [c for c in candidates if c.finished]
    assert len(finished) >= 2
    for candidate in finished:
        free = np.array([voice not in STANDING_VOICES for voice in voices_of(candidate.rows)])
        losses = teacher_forced(model, planner, task, candidate.rows)
        fields, onsets, end = losses[1:, :6], losses[:-1, 6:], losses[-1, 6:]
        total = fields[free].sum() + onsets[free].sum() + end.sum()
        assert total / max(1, free.sum()) == pytest.approx(candidate.nll, abs=1e-4)


def test_where_the_model_expects_a_standing_voice_no_free_one_must_play(song: np.ndarray) -> None:
    config = tiny_config()
    model = network_alone(talkative_model(config))
    _, task, remembered = plan(model, song, config.memory)
    task = among(task, song[song[:, BAR] < 4])
    standing = sorted({program for program, _ in STANDING_VOICES})
    with torch.no_grad():
        model.heads.out[HEAD_ORDER.index(PROGRAM)].bias[standing] += 4.0
    notes = []
    for redraws in (0, 8):
        candidates = write_chunk(model, remembered, task, replace(PLAIN, redraws=redraws), np.random.default_rng(1))
        assert all(np.array_equal(parted(candidate)[0], task.fixed) for candidate in candidates)
        notes.append(sum(len(parted(candidate)[1]) for candidate in candidates))
    assert notes[1] < 0.6 * notes[0]


@pytest.mark.parametrize("most_notes", [1, 4])
def test_the_note_limit_leaves_room_for_fixed_rows(planned: Planned, fixed_task: Task, most_notes: int) -> None:
    model, _, memory = planned
    for candidate in write_chunk(model, memory, fixed_task, PLAIN, np.random.default_rng(2), most_notes):
        fixed, free = parted(candidate)
        assert np.array_equal(fixed, fixed_task.fixed)
        assert len(free) == most_notes and not candidate.finished


def biased(head: int, favourite: int) -> ChunkTransformer:
    model = network_alone(talkative_model())
    with torch.no_grad():
        model.heads.out[HEAD_ORDER.index(head)].bias[favourite] += 50
    return model


@pytest.mark.parametrize("onset", [(0, 0), (0, 47), (3, 0), (3, 47)])
def test_a_chunk_does_not_end_before_its_last_fixed_row(song: np.ndarray, onset: tuple[int, int]) -> None:
    model = biased(BAR, FIELD_SIZES[BAR])  # ends as soon as it may
    _, task, memory = plan(model, song, MemoryConfig())
    row = np.array([[*onset, 7, 40, 0, 60, 11, 12]], np.int32)
    for candidate in write_chunk(model, memory, among(task, row), PLAIN, np.random.default_rng(0)):
        fixed, free = parted(candidate)
        assert np.array_equal(fixed, row) and candidate.finished
        if onset[0] < 3:
            assert candidate.rows[-1, BAR] == 3  # only the first note in the last bar lets the chunk end
        assert (free[:, BAR] == 3).sum() <= 1


def test_free_voices_need_not_play_where_only_fixed_ones_are_expected(song: np.ndarray) -> None:
    """A model that expects drums everywhere writes no piano at the onsets of the drums that stand."""
    model = biased(PROGRAM, DRUM_PROGRAM)
    _, task, memory = plan(model, song, MemoryConfig())
    onsets = {(bar, position) for bar in range(4) for position in (0, 12)}
    voices = ((40, 0, 60), (DRUM_PROGRAM, 0, 170), (DRUM_PROGRAM, 1, 170))  # the drums are not the next to come
    band = np.array([[*onset, 4, *voice, 3, 20] for onset in sorted(onsets) for voice in voices], np.int32)
    task = among(task, band, {(40, 0), (40, 1), (DRUM_PROGRAM, 0), (DRUM_PROGRAM, 1)})
    for candidate in write_chunk(model, memory, task, PLAIN, np.random.default_rng(0)):
        free = candidate.rows[candidate.rows[:, PROGRAM] == 0]
        assert len(candidate.rows) - len(free) == len(band)
        assert not onsets & {tuple(onset) for onset in free[:, :2].tolist()}


def test_free_voices_need_not_play_beside_a_fixed_onset_that_they_may_not_have(song: np.ndarray) -> None:
    """The model expects an onset a sixteenth late, where only what stands may be: it comes first, then the next bar."""
    model = biased(POSITION, 3)
    _, task, memory = plan(model, song, MemoryConfig())
    grooves = np.zeros_like(task.grammar.grooves)
    grooves[:, 0, 4] = True
    late = np.array([[bar, 3, 4, 40, 0, 60, 3, 20] for bar in range(4)], np.int32)
    task = among(replace(task, grammar=replace(task.grammar, grooves=grooves)), late)
    for candidate in write_chunk(model, memory, task, PLAIN, np.random.default_rng(0)):
        for bar in range(4):
            in_bar = candidate.rows[candidate.rows[:, BAR] == bar]
            assert np.array_equal(in_bar[0], late[bar])  # nobody played on the downbeat instead


# ---- one choice ------------------------------------------------------------------------------------------------------

ODDS = np.array([0.05, 0.5, 0.15, 0.3])


def shares(config: GenerateConfig, mask: list[bool] | None = None, odds: np.ndarray = ODDS) -> np.ndarray:
    """How often each class is picked in DRAWS picks."""
    p = np.tile(odds.astype(np.float32), (DRAWS, 1))
    masks = None if mask is None else np.tile(mask, (DRAWS, 1))
    picked = pick(p, masks, config, np.random.default_rng(0))
    return np.bincount(picked, minlength=len(odds)) / DRAWS


def expected(*kept: int, power: float = 1.0) -> np.ndarray:
    odds = np.where(np.isin(np.arange(len(ODDS)), kept), ODDS**power, 0)
    return odds / odds.sum()


@pytest.mark.parametrize(
    ("changes", "mask", "odds"),
    [
        ({}, None, expected(0, 1, 2, 3)),
        ({}, [True, False, True, True], expected(0, 2, 3)),
        ({"temperature": 2.0}, None, expected(0, 1, 2, 3, power=0.5)),
        ({"min_p": 0.11}, None, expected(1, 2, 3)),
        ({"min_p": 0.2}, None, expected(1, 2, 3)),
        ({"min_p": 0.4}, None, expected(1, 3)),
        ({"min_p": 0.2}, [True, False, True, True], expected(2, 3)),  # beside the likeliest that is allowed
        ({"top_p": 0.96}, None, expected(0, 1, 2, 3)),
        ({"top_p": 0.9}, None, expected(1, 2, 3)),
        ({"top_p": 0.7}, None, expected(1, 3)),
        ({"top_p": 0.1}, None, expected(1)),  # never less than one
        ({"top_p": 1e-9}, None, expected(1)),
        ({"min_p": 0.4, "top_p": 0.6}, None, expected(1)),  # 0.5 of the 0.8 that min-p leaves is enough
        ({"min_p": 1.0}, None, expected(1)),
    ],
)
def test_pick_draws_what_is_left_at_its_odds(changes: dict, mask: list[bool] | None, odds: np.ndarray) -> None:
    found = shares(replace(PLAIN, **changes), mask)
    assert ((found > 0) == (odds > 0)).all()
    assert np.abs(found - odds).max() < 5 * np.sqrt(0.25 / DRAWS)


def test_pick_at_temperature_0_is_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 30))
    mask = rng.random((50, 30)) < 0.5
    mask[:, 0] = True
    best = np.where(mask, logits, -np.inf).argmax(1)
    assert (pick(np.exp(logits), mask, replace(PLAIN, temperature=1e-6), rng) == best).all()


class _Always:
    """A generator of one number."""

    def __init__(self, value: float):
        self.value = value

    def random(self, count: int) -> np.ndarray:
        return np.full(count, self.value)


@pytest.mark.parametrize("value", [0.0, 0.5, np.nextafter(1.0, 0.0)])
def test_pick_never_takes_a_dropped_class_by_rounding(value: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 40)).astype(np.float32) * 3
    mask = rng.random(logits.shape) < 0.3
    mask[:, [0, -1]] = False
    mask[:, 20] = True
    picked = pick(np.exp(logits), mask, replace(PLAIN, min_p=0.05, top_p=0.9), _Always(value))  # type: ignore[arg-type]
    assert mask[np.arange(len(mask)), picked].all()


@pytest.mark.parametrize(
    ("less", "more", "figure"),
    [
        (Asked(notes=20), Asked(notes=400), len),
        (Asked(velocity=4), Asked(velocity=28), lambda rows: rows[:, VELOCITY].mean()),
        (Asked(pitch=40), Asked(pitch=90), lambda rows: rows[rows[:, PROGRAM] != DRUM_PROGRAM, PITCH].mean()),
    ],
    ids=["density", "loudness", "register"],
)
def test_what_is_asked_moves_what_is_written(planned: Planned, less: Asked, more: Asked, figure: Callable) -> None:
    model, task, memory = planned
    few, many = (
        np.mean([
            figure(one.rows)
            for seed in range(3)
            for one in write_chunk(model, memory, replace(task, asked=asked), PLAIN, np.random.default_rng(seed), 60)
        ])
        for asked in (less, more)
    )  # fmt: skip
    assert few < many
