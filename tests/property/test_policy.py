"""Whatever sensors say, in whatever order: guests run only where the owner lets them; what is said depends on what was heard."""

from hypothesis import given
from hypothesis import strategies as st

from p2pq.core.policy import MODES, PAUSED, OwnerPolicy
from p2pq.model.config import PolicySettings
from p2pq.model.ids import Mono
from p2pq.model.owner import Readings

RULE = "idle_s > 60 and load < 0.5"
TIMES = st.sampled_from([0.0, 1.0, 30.0, 60.0, 300.0])
maybe = st.one_of(st.none(), st.booleans())


@st.composite
def policies(draw: st.DrawFn) -> PolicySettings:
    return PolicySettings(
        mode=draw(st.sampled_from((*MODES, RULE))),
        idle_s=draw(st.sampled_from([1.0, 60.0, 900.0])),
        resume_s=draw(TIMES),
        evict_s=draw(TIMES),
        load_pause_s=draw(TIMES),
        on_return=draw(st.sampled_from(["suspend", "kill"])),
        on_battery=draw(st.booleans()),
        full_screen=draw(st.booleans()),
        programs=draw(st.sampled_from([(), ("game",)])),
    )


readings = st.builds(
    Readings,
    idle_s=st.one_of(st.none(), st.sampled_from([0.0, 0.5, 59.0, 61.0, 299.0, 301.0, 1e6])),
    locked=maybe,
    saver=st.booleans(),
    full_screen=maybe,
    load=st.one_of(st.none(), st.sampled_from([0.0, 0.3, 0.4, 0.5, 1.0])),
    mains=maybe,
    programs=st.sampled_from([None, (), ("game",)]),
    minute=st.integers(0, 1439),
)
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 1.0, 60.0, 400.0]),
        readings,
        st.sampled_from(["", "", "", "pause", "brief", "resume"]),
    ),
    max_size=30,
)


def may_run(settings: PolicySettings, said: Readings) -> bool:  # noqa: PLR0911  one for each thing that may forbid it
    """Return whether nothing that is said now forbids it, whatever was before, read from the manual."""
    mode = settings.mode
    if mode == "always":
        return True
    if mode == RULE:
        return said.idle_s is not None and said.load is not None and said.idle_s > 60 and said.load < 0.5
    if not settings.on_battery and said.mains is not True:
        return False
    if settings.programs and said.programs != ():
        return False
    if mode == "screensaver":
        return said.saver or said.locked is True
    if settings.full_screen and said.full_screen is not False:
        return False
    if mode == "night":
        return said.minute >= 22 * 60 or said.minute < 7 * 60
    return said.load is not None and said.idle_s is not None and said.idle_s >= min(settings.idle_s, settings.resume_s)


@given(policies(), steps)
def test_guests_run_only_where_nothing_that_is_said_forbids_it(settings: PolicySettings, heard: list) -> None:
    subject, twin = OwnerPolicy(settings), OwnerPolicy(settings)
    now, paused_until, left = 0.0, 0.0, None
    before = subject.verdict
    for after, said, asked in heard:
        now += after
        for each in (subject, twin):
            if asked == "resume":
                each.resume()
            elif asked:
                each.pause(None if asked == "pause" else Mono(now + 30.0), Mono(now))
        paused_until = {"": paused_until, "pause": float("inf"), "brief": now + 30.0, "resume": 0.0}[asked]
        verdict = subject.sense(said, Mono(now))
        assert verdict == twin.sense(said, Mono(now)), "it depends on more than it was told"
        assert bool(verdict.reason) is (verdict.stance != "run"), "everything but running has a reason"
        if verdict.stance == "run":
            assert may_run(settings, said), "guests run where they must not"
            assert now >= paused_until, "guests run in a pause"
        if now < paused_until and before.stance == "run":
            assert verdict.reason == PAUSED
        if settings.mode == "screensaver":
            assert verdict.stance not in {"suspend", "evict"}, "who unlocks the screen waits for nothing"
        if before.stance in {"evict", "kill"}:
            assert verdict.stance in {before.stance, "run"}, "who was sent away is not there to stand still"
        left = (now if before.stance != "suspend" else left) if verdict.stance == "suspend" else None
        assert left is None or now - left < max(settings.evict_s, 0.1), "guests stand still for too long"
        assert subject.deadline is None or subject.deadline > now
        before = verdict


@given(policies(), st.lists(st.tuples(st.floats(0.1, 1000.0), st.booleans()), max_size=20))
def test_nothing_flaps(settings: PolicySettings, heard: list) -> None:
    """After input guests wait for as long as they have to, however short a glimpse of quiet there was."""
    if settings.mode != "idle":
        return
    subject, now, touched = OwnerPolicy(settings), 0.0, -1e9
    for after, there in heard:
        now += after
        touched = now if there else touched
        verdict = subject.sense(
            Readings(idle_s=now - touched, load=0.0, mains=True, full_screen=False, programs=()), Mono(now)
        )
        if verdict.stance == "run":
            assert now - touched >= min(settings.idle_s, settings.resume_s)
