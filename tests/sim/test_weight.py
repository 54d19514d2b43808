"""A job of many tasks costs a master nothing for tasks that wait, and little for those that are over, whatever goes wrong."""

from simulations.sizes import size_of
from simulations.weight import weigh


def test_sizes_are_of_all_that_hangs_on_an_object():
    assert size_of([]) < size_of([bytes(1000)]) < size_of([bytes(1000), bytes(1001)])
    shared = bytes(1000)
    assert size_of([shared, shared]) < size_of([shared, bytes(1001)])


def test_what_waits_weighs_nothing_and_faults_add_little():
    none, many = weigh("none", 3000), weigh("many", 3000)
    assert none.pending < 3
    assert none.half < 1500
    assert many.half < 1.5 * none.half + 200
    assert none.messages < 6
    assert many.messages < 2 * none.messages + 3
