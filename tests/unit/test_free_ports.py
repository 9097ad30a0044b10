"""Ports that two who choose at the same moment do not both get."""

from __future__ import annotations

import socket
import subprocess
import sys

from penstock.cli.free_ports import free_port

CHOOSE = "from penstock.cli.free_ports import free_port; print(free_port({port}), flush=True); input()"


def test_a_preferred_port_goes_to_one_of_two_processes() -> None:
    """The one that chose first has it until it ends, although nobody listens there yet."""
    wanted = free_port()
    other = subprocess.Popen(
        [sys.executable, "-c", CHOOSE.format(port=wanted + 1)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        assert free_port(theirs) != theirs
    finally:
        other.communicate("\n", timeout=30)
    assert free_port(theirs) == theirs


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    """Who has no lock but the port is respected too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        assert free_port(taken) != taken


def test_what_is_not_preferred_is_none_of_the_kernels() -> None:
    """No outgoing connection gets such a port in the meantime."""
    assert 20_000 <= free_port() < 32_000
