"""Keyboards and mice, as /sys and /proc/interrupts show them."""

from pathlib import Path

from p2pq.daemon.sensors.devices import RESCAN_S, Devices

HEAD = "           CPU0       CPU1\n"


class Machine:
    """A machine with a keyboard, and what is none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.usb = root / "sys" / "bus" / "usb" / "devices"
        self.usb.mkdir(parents=True)
        (root / "proc").mkdir()

    def device(self, name: str, kind: str, protocol: str, transfers: int = 0) -> None:
        for folder in (self.usb / name, self.usb / f"{name}:1.0"):
            folder.mkdir()
        (self.usb / f"{name}:1.0" / "bInterfaceClass").write_text(f"{kind}\n")
        (self.usb / f"{name}:1.0" / "bInterfaceProtocol").write_text(f"{protocol}\n")
        self.transfers(name, transfers)

    def transfers(self, name: str, count: int) -> None:
        (self.usb / name / "urbnum").write_text(f"{count}\n")

    def interrupts(self, count: int) -> None:
        rows = f"  1:  {count}  7  IO-APIC   1-edge      i8042\n 16:  {count * 3}  0  IO-APIC  16-fasteoi   ehci_hcd:usb1\n"
        (self.root / "proc" / "interrupts").write_text(f"{HEAD}{rows}NMI:  0  0  Non-maskable interrupts\n")


def test_keys_and_movements_are_changes_of_counters(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.device("1-1", "03", "01", 50)
    machine.device("1-2", "03", "02", 50)
    machine.device("1-3", "08", "50", 50)  # a disk
    machine.device("1-4", "03", "00", 50)  # a power supply that talks all the time
    machine.interrupts(10)
    devices = Devices(str(tmp_path))
    assert devices.idle_s(100.0) == 0
    assert devices.idle_s(150.0) == 50
    for name in ("1-3", "1-4"):
        machine.transfers(name, 51)
    assert devices.idle_s(160.0) == 60
    machine.transfers("1-2", 51)
    assert devices.idle_s(170.0) == 0
    machine.interrupts(11)
    assert devices.idle_s(180.0) == 0
    assert devices.idle_s(181.0) == 1


def test_devices_that_come_are_seen_and_coming_or_going_is_no_key(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    devices = Devices(str(tmp_path))
    assert devices.idle_s(100.0) is None
    machine.device("1-1", "03", "01")
    assert devices.idle_s(100.0 + RESCAN_S - 1) is None
    assert devices.idle_s(100.0 + RESCAN_S) == RESCAN_S
    machine.transfers("1-1", 1)
    assert devices.idle_s(101.0 + RESCAN_S) == 0
    (machine.usb / "1-1" / "urbnum").unlink()
    assert devices.idle_s(102.0 + RESCAN_S) is None


def test_this_machine_has_keyboards_or_none() -> None:
    devices = Devices()
    first, second = devices.idle_s(5.0), devices.idle_s(6.0)
    assert first in {0, None}
    assert (second is None) == (first is None)
