"""What a project costs while nothing happens."""

from __future__ import annotations

import time

from bench import processes
from bench.figures import Figure, Result, Target
from bench.session import Session

_MOST_PERCENT = 2.0


def run(session: Session) -> Result:
    """Let it settle, then count processor time for two minutes."""
    settle, seconds = session.pick((30, 120), (2, 5))
    with session.running("idle") as world:
        world.warm("drops")
        session.say(f"{seconds} idle seconds, after {settle} to settle")
        time.sleep(settle)
        kinds = processes.find(world.folder)
        before = {pid: processes.cpu_seconds(pid) for pid in kinds}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        used: dict[str, float] = {}
        for pid, kind in kinds.items():
            used[kind] = used.get(kind, 0.0) + processes.cpu_seconds(pid) - before[pid]
        memory = {kind: processes.memory(pid) for pid, kind in kinds.items()}
        world.check()
    percent = {kind: 100 * spent / took for kind, spent in used.items()}
    own = {kind: value for kind, value in percent.items() if kind in processes.OWN}
    return Result(
        name="idle",
        title=f"{seconds} idle seconds",
        method=(
            "A project with eight datasets and the default settings, one file loaded before, left alone. Processor "
            "time is what the kernel counted, in shares of one core; memory is resident."
        ),
        figures=[
            Figure(
                name="idle_cpu",
                what="processor time of penstock's own processes",
                value=sum(own.values()),
                unit="%",
                target=Target(on="value", bound=_MOST_PERCENT),
                note=", ".join(f"{kind} {value:.2f}%" for kind, value in sorted(own.items())),
            ),
            *(
                Figure(
                    name=f"idle_{kind.replace(' ', '_')}",
                    what=f"{kind}: resident memory",
                    value=found["resident"],
                    unit="MB",
                    note=f"{percent[kind]:.2f}% of a core",
                )
                for kind, found in sorted(memory.items())
                if found
            ),
        ],
        verified="one file was loaded before, and every process lived through it",
    )
