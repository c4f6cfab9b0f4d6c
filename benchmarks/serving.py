"""How many rows a second the embedded server scores, beside scoring in process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.machines import SBN3, VISIBLE
from rws_keras import HelmholtzMachine
from rws_keras.serving.export import export

MODEL = "sbn-200-200-200"
SIGNATURE = "serving_default"
ROOT = Path(__file__).parents[1]
_PORTS = {"rest": 18501, "grpc": 18500}
_SECONDS = 5.0
_CASES = [(clients, rows) for rows in (1, 16) for clients in (1, 4, 16, 64)]


@contextlib.contextmanager
def server(models: Path) -> Iterator[subprocess.Popen]:
    """The server in a process of its own, ready."""
    command = [sys.executable, "-m", "rws_keras", "serve", "--models", str(models)]
    command += ["--rest-port", str(_PORTS["rest"]), "--grpc-port", str(_PORTS["grpc"])]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{_PORTS['rest']}/readyz")
                break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def measure(report: Callable[[str], None]) -> dict:
    """Loads of 1 to 64 clients, by REST and gRPC, with 1 and 16 rows a request.

    Args:
        report: Called with a line about each result.

    Returns:
        Rows a second in process (the exported signature on 256 rows at a time, before, between
        and after the loads), and for each case rows a second, their ratio, latencies and wrong
        answers.
    """
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory) / "models"
        # The weights make no difference to the speed.
        machine = HelmholtzMachine.from_sizes(VISIBLE, SBN3)
        machine.save(file := Path(directory) / f"{MODEL}.keras")
        model = tf.saved_model.load(os.fspath(export(file, models)))
        x = machine.sample(1024, seed=0).x.numpy()
        score = model.signatures[SIGNATURE]
        expected = score(x=tf.constant(x))["log_likelihood"].numpy()
        job = {"model": MODEL, "signature": SIGNATURE, "seconds": _SECONDS}
        for name, array in [("data", x), ("expected", expected)]:
            job[name] = str(Path(directory) / f"{name}.npy")
            np.save(job[name], array)

        def in_process():
            start = time.perf_counter()
            for first in range(0, len(x), 256):
                score(x=tf.constant(x[first : first + 256]))
            return len(x) / (time.perf_counter() - start)

        base, cases = [in_process()], []
        with server(models):
            for clients, rows in _CASES:
                for protocol, port in _PORTS.items():
                    case = {"protocol": protocol, "clients": clients, "rows": rows}
                    found = _load({**job, **case, "port": port}, Path(directory))
                    rate = found["requests"] * rows / found["seconds"]
                    cases.append({**case, **found, "rows_per_second": rate})
                    report(
                        f"{protocol}, {clients} clients, {rows} rows: {rate:,.0f} rows/s, "
                        f"p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms, "
                        f"{found['wrong']} wrong"
                    )
                base.append(in_process())
        rate = float(np.median(base))
        for case in cases:
            case["ratio"] = case["rows_per_second"] / rate
        report(f"in process: {rate:,.0f} rows/s")
        return {
            "model": MODEL,
            "signature": SIGNATURE,
            "in_process_rows_per_second": rate,
            "in_process_each": base,
            "cases": cases,
            "saturation": {
                protocol: max(c["ratio"] for c in cases if c["protocol"] == protocol)
                for protocol in _PORTS
            },
        }


def _load(job: dict, directory: Path) -> dict:
    job_file, result_file = directory / "job.json", directory / "result.json"
    job_file.write_text(json.dumps(job))
    command = [sys.executable, "-m", "benchmarks.load", str(job_file), str(result_file)]
    subprocess.run(command, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    return json.loads(result_file.read_text())
