"""FluidSynth's audio driver as a sink: events are handed to its sequencer a little early and sound on its own clock,
so that no pause of ours is heard. Knows FluidSynth and single messages; knows no songs.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import mido

from ..errors import MissingPart
from ..render import fluid_error, fluidsynth, fluidsynth_version, new_synth
from .sinks import quiet_stderr

TICKS_PER_S = 1000
FADE_S = 4.0  # at most, for what rings on at the end


class Speakers:
    """Plays through a sound device."""

    lead_s = 0.25

    def __init__(self, soundfont: str | Path | None = None, driver: str | None = None) -> None:
        """`driver` is one of FluidSynth's audio drivers (alsa, pulseaudio, coreaudio, file, …), by default its own
        choice. Raises MissingPart: no FluidSynth, no soundfont or no sound device."""
        self._fluid = fluid = fluidsynth()
        self._lib = lib = fluid._fl
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        for name, values in (("program_change", 2), ("control_change", 3), ("pitch_bend", 2), ("channel_pressure", 2),
                             ("key_pressure", 3)):  # fmt: skip
            getattr(lib, f"fluid_event_{name}").argtypes = [pointer, *[integer] * values]
        lib.fluid_sequencer_remove_events.argtypes = [pointer, ctypes.c_short, ctypes.c_short, integer]
        lib.fluid_synth_sysex.argtypes = [pointer, ctypes.c_char_p, integer, pointer, pointer, pointer, integer]
        self._synth = new_synth(soundfont)
        if driver:
            self._synth.setting("audio.driver", driver)
        with quiet_stderr():  # ALSA and JACK tell their own tale there
            self._driver = fluid.new_fluid_audio_driver(self._synth.settings, self._synth.synth)
        if not self._driver:
            name = self._synth.get_setting("audio.driver")
            self._synth.delete()
            raise MissingPart(
                f"FluidSynth {fluidsynth_version()} finds no sound device by its driver {name} ({fluid_error()}); try "
                "another with --driver, write to a file with --out, or play to a MIDI port with --port."
            )
        self._sequencer = fluid.Sequencer(TICKS_PER_S, use_system_timer=False)
        self._target = self._sequencer.register_fluidsynth(self._synth)
        self._struck: dict[tuple[int, int], int] = {}  # tick at which channel and pitch were last struck

    def now(self) -> float:
        return float(self._sequencer.get_tick()) / TICKS_PER_S

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def send(self, at_s: float, message: mido.Message) -> None:
        fluid, lib, tick = self._fluid, self._lib, round(at_s * TICKS_PER_S)
        if message.type == "sysex":  # sequencers know none
            data = bytes(message.data)
            lib.fluid_synth_sysex(self._synth.synth, data, len(data), None, None, None, 0)
            return
        event, channel = fluid.new_fluid_event(), getattr(message, "channel", 0)
        try:
            fluid.fluid_event_set_source(event, -1)
            fluid.fluid_event_set_dest(event, self._target)
            match message.type:
                case "note_on" if message.velocity > 0:
                    self._struck[channel, message.note] = tick
                    fluid.fluid_event_noteon(event, channel, message.note, message.velocity)
                case "note_on" | "note_off":
                    # of events at one tick the sequencer takes releases first
                    tick = max(tick, self._struck.pop((channel, message.note), tick - 1) + 1)
                    fluid.fluid_event_noteoff(event, channel, message.note)
                case "program_change":
                    lib.fluid_event_program_change(event, channel, message.program)
                case "control_change":
                    lib.fluid_event_control_change(event, channel, message.control, message.value)
                case "pitchwheel":
                    lib.fluid_event_pitch_bend(event, channel, message.pitch + 8192)
                case "aftertouch":
                    lib.fluid_event_channel_pressure(event, channel, message.value)
                case "polytouch":
                    lib.fluid_event_key_pressure(event, channel, message.note, message.value)
                case _:
                    return
            fluid.fluid_sequencer_send_at(self._sequencer.sequencer, event, tick, 1)
        finally:
            fluid.delete_fluid_event(event)

    def silence(self) -> None:
        self._lib.fluid_sequencer_remove_events(self._sequencer.sequencer, -1, self._target, -1)
        self._synth.all_sounds_off(-1)

    def close(self) -> None:
        until = time.monotonic() + FADE_S
        time.sleep(self.lead_s)  # what was handed over has begun by then
        while self._synth.get_active_voice_count() and time.monotonic() < until:
            time.sleep(0.05)
        self._fluid.delete_fluid_audio_driver(self._driver)
        self._sequencer.delete()
        self._synth.delete()
