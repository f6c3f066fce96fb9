"""What limb leads say of one another."""
import numpy as np

from tests.ecg.paper.test_reading import HEART
from utils.ecg.paper import laws
from utils.ecg.signals import LEADS


def cells_of(signal):
    return [(lead, row, 0.0, 250.0, 0, values.astype(float))
            for row, (lead, values) in enumerate(zip(LEADS, signal))]


def test_a_limb_lead_that_another_row_runs_into_is_what_the_others_say():
    read = HEART.copy()
    read[3] += 0.3  # each lead has a level of its own
    read[4, 1000:1100] -= 1.5
    read[0, 3000:3200] = np.nan
    found, changed = laws.reconcile(cells_of(read), 12)
    assert changed == ['aVL']
    for (lead, *_, values), true in zip(found, HEART):
        there = np.isfinite(values)
        off = values[there] - true[there]
        assert np.abs(off - np.median(off)).max() < 0.03, lead
        assert there.all() == (lead != 'I')


def test_three_limb_leads_do_not_say_which_one_is_wrong():
    cells = cells_of(HEART)
    assert laws.reconcile(cells, 3) == (cells, [])
