"""The ports of a server: taken before models are loaded, shared with nobody, given back."""

import contextlib
import socket
import threading
from concurrent import futures

import grpc
import pytest
from server_process import free_port

from rws_keras.errors import UserError
from rws_keras.serving.server import serve


def ipv6():
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")


def no_models():
    pytest.fail("Models were looked for before the ports were taken.")


def is_free(port):
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


@contextlib.contextmanager
def another_program(kind, host, port):
    """Listens at a port as another program does: as a gRPC server shares its port by default."""
    if kind == "gRPC server":
        server = grpc.server(futures.ThreadPoolExecutor(1))
        server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        server.start()
        yield
        server.stop(None).wait()
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, dualstack_ipv6=host == "::"):
        yield


HOSTS = [
    ("127.0.0.1", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.1"),
    ("127.0.0.1", "0.0.0.0"),
    ("127.0.0.1", "localhost"),
    pytest.param("::", "127.0.0.1", marks=needs_ipv6),
    pytest.param("127.0.0.1", "::", marks=needs_ipv6),
    pytest.param("::1", "::", marks=needs_ipv6),
    pytest.param("::1", "::1", marks=needs_ipv6),
]


@pytest.mark.parametrize("api", ["REST", "gRPC"])
@pytest.mark.parametrize("kind", ["socket", "gRPC server"])
@pytest.mark.parametrize(("theirs", "ours"), HOSTS)
def test_a_port_that_another_program_has_is_refused(api, kind, theirs, ours):
    taken, other = free_port(), free_port()
    ports = {"REST": (taken, other), "gRPC": (other, taken)}[api]
    message = f"Port {taken} of {ours} cannot be used for {api}: .*Choose another"
    with another_program(kind, theirs, taken), pytest.raises(UserError, match=message) as caught:
        serve(no_models, ours, *ports)
    # While the error is at hand, too: its traceback holds what the server held.
    assert is_free(other), caught


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ((8501, 8501), "REST and gRPC need a port each, got 8501 for both"),
        ((70_000, 0), "The port for REST must be from 0 .* to 65535, got 70000"),
        ((0, 2**16 + 80), "The port for gRPC must be from 0 .* to 65535, got 65616"),
        ((-1, 0), "The port for REST must be from 0"),
    ],
)
def test_ports_that_cannot_be(ports, message):
    with pytest.raises(UserError, match=message):
        serve(no_models, "127.0.0.1", *ports)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "[::1]"])
def test_hosts_that_cannot_be(host):
    """An address of another machine (reserved for documentation), a name of none."""
    with pytest.raises(UserError, match=r"cannot be used for REST: .*Choose another port or host"):
        serve(no_models, host, 0, 0)


def test_two_servers_at_once():
    """The second is refused while the first loads its models; a first that fails lets go."""
    ports = free_port(), free_port()
    loading, go_on = threading.Event(), threading.Event()

    def config():
        loading.set()
        go_on.wait(60)
        raise UserError("These models cannot be found.")

    with futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(serve, config, "127.0.0.1", *ports)
        assert loading.wait(60)
        try:
            for each in ((ports[0], 0), (0, ports[1])):
                with pytest.raises(UserError, match="cannot be used"):
                    serve(no_models, "127.0.0.1", *each)
            # One of another kind, which would share the port.
            with pytest.raises(RuntimeError), another_program("gRPC server", "0.0.0.0", ports[1]):
                pass
        finally:
            go_on.set()
        with pytest.raises(UserError, match="These models cannot be found"):
            first.result()
    assert all(map(is_free, ports))
