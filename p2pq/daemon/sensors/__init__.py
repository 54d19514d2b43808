"""What tells whether somebody needs this machine: a module for each of ``p2pq.model.owner.SENSORS``, and what those look through.

gather     ``Sensors``: all of them, at the pace that each is worth
findings   what `p2pq doctor` says of them

seats      input: the least of what displays, desktops, terminals and devices say
screens    screen: locked, blanked, filled by a program, or with `p2pq screensaver` on it
load       load: cores that others than us use
memory     memory: how long processes wait for some
power      power: mains and battery
programs   programs: which of those named run

displays   X servers, by ``xclient`` (the protocol) and ``xauthority`` (whom they let in)
logind     sessions of people, and what they say of themselves; by ``bus`` (D-Bus), as are
desktops   desktops, which know more
terminals  when something was typed into one
devices    keyboards and mice, by what the kernel counts
kin        which processes are ours, and the time that they took
claim      `p2pq screensaver` runs
peeking    small files of /proc and /sys

Nothing here waits for longer than some milliseconds, has a thread, or wakes up unasked.
"""

from p2pq.daemon.sensors.gather import Sensors

__all__ = ["Sensors"]
