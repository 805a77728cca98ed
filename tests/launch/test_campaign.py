"""Each kind of fault, done to real processes: `benchmarks/faults.py` does a thousand."""

import pytest
from campaign import Campaign, Lab, clean_room
from live_faults import LIVE
from script_faults import SCRIPTS, Zygote

SEED = 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork of a process with threads
def test_nothing_hangs_is_left_or_wrong_after_any_fault() -> None:
    with clean_room() as left:
        zygote, lab, campaign = Zygote(), Lab(SEED), Campaign(SEED)
        for number, (kind, (_, fault)) in enumerate(LIVE.items()):
            if kind != "server stopped":  # it waits for seconds on end
                campaign.do(number, kind, lambda rng, outcome, fault=fault: lab.suffer(fault, rng, outcome))
        for number, (kind, (_, script_fault)) in enumerate(SCRIPTS.items()):
            campaign.do(1000 + number, kind, lambda rng, outcome, fault=script_fault: fault(zygote, rng, outcome))
        lab.pipe.close()
        zygote.close()
        assert [outcome for outcome in campaign.outcomes if outcome.mistakes] == []
        assert not any(left().values())
