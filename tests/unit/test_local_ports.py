"""All ports move together, and a taken one is named with its holder."""

from __future__ import annotations

import os
import socket

import pytest

from deploy.local.errors import LocalError, PortTakenError
from deploy.local.ports import Ports, is_free, is_listening, require_free


def test_the_documented_ports() -> None:
    ports = Ports.at(8700)
    assert (ports.gateway, ports.grpc, ports.shipper, ports.model_server) == (8710, 8711, 8712, 8720)
    assert (ports.postgres, ports.kafka, ports.controller) == (8732, 8792, 8793)


def test_one_number_moves_them_all() -> None:
    at_default, moved = Ports.at(8700), Ports.at(9700)
    assert {name: port - 1000 for name, port in moved} == at_default.as_dict()


@pytest.mark.parametrize("front", [80, 65500, -1])
def test_an_impossible_port_is_refused_with_the_range(front: int) -> None:
    with pytest.raises(LocalError, match="between 1024 and 65442"):
        Ports.at(front)


def test_a_port_that_an_older_version_did_not_know_is_at_its_distance() -> None:
    saved = {name: port for name, port in Ports.at(9700) if name != "shipper"}
    assert Ports.remembered(saved) == Ports.at(9700)
    assert Ports.remembered(odd := Ports.free().as_dict()).as_dict() == odd
    for damaged in ({}, {**saved, "flux": 1}):
        with pytest.raises((KeyError, TypeError)):
            Ports.remembered(damaged)


def test_free_ports_are_all_different() -> None:
    numbers = list(Ports.free().as_dict().values())
    assert len(set(numbers)) == len(numbers)
    assert all(is_free(port) for port in numbers)


def test_a_taken_port_is_named_with_the_process_that_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert is_listening(port)
        with pytest.raises(
            PortTakenError, match=rf"Port {port}, needed for Kafka, is taken by process {os.getpid()} .*--port"
        ):
            require_free(port, "Kafka")
    require_free(port, "Kafka")
    assert not is_listening(port)
