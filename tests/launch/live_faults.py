"""Faults that are done to a living pipeline of this process, at random moments."""

import rank_faults as rank
import system_faults as system
import user_faults as user
from campaign import Fault

# How often each, against the others.
LIVE: dict[str, tuple[float, Fault]] = {
    "rank killed in a run": (20, rank.rank_killed),
    "rank killed while idle": (6, rank.rank_killed_idle),
    "several ranks killed at once": (6, rank.several_killed),
    "rank killed in start": (3, system.killed_while_starting),
    "rank stopped": (4, rank.rank_stopped),
    "rank paused, then let go on": (4, rank.rank_paused),
    "signals that mean nothing": (3, rank.harmless_signal),
    "op raises": (12, rank.op_raises),
    "op gives a wrong shape": (3, rank.wrong_shape),
    "rank may take no more memory": (3, rank.rank_without_memory),
    "batch larger than the memory": (3, rank.batch_too_big),
    "rank sends garbage": (3, rank.garbage),
    "interrupt()": (6, user.interrupted),
    "Ctrl-C": (10, user.ctrl_c),
    "Ctrl-C twice": (3, user.ctrl_c_twice),
    "closed in a run": (6, user.closed_meanwhile),
    "closed by its own callback": (3, user.closed_from_within),
    "callback raises": (3, user.progress_raises),
    "name rebound": (4, user.rebound),
    "forgotten": (4, user.forgotten),
    "fork": (4, user.forked),
    "one of two pipelines hit": (4, user.two_pipelines),
    "server killed": (3, system.server_killed),
    "server stopped": (0.5, system.server_stopped),
    "unsplit model's rank killed": (3, system.baseline_hit),
    "measure hit": (1.5, system.measure_hit),
    "no descriptors left": (4, system.no_descriptors),
}
