"""How a server starts: options that make no sense, and what it loads."""

import json
import subprocess
import sys
import textwrap

import pytest
from server_process import ROOT, ServerProcess, free_port

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        ([], {}, "Give either --models or --model-config-file"),
        (["--models", "none"], {}, "There is no directory none"),
        (["--model-config-file", "."], {}, "There is no file"),
        (["--models", "."], {"RWS_KERAS_API_KEY": ""}, "The API key is empty"),
        (["--models", ".", "--api-key", ""], {}, "The API key is empty"),
        (["--models", ".", "--rest-timeout", 0], {}, "--rest-timeout must be a positive number"),
        (["--models", ".", "--idle-timeout", "nan"], {}, "--idle-timeout must be a positive"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options, environment, message, tmp_path):
    with pytest.raises(RuntimeError, match=f"Error: {message}"):
        ServerProcess(*options, log=tmp_path / "log", environment=environment)


def test_a_configuration_that_tf_serving_refuses(tmp_path):
    config = tmp_path / "models.config"
    config.write_text('model_config_list { config { name: "m" base_path: "m" } }')
    with pytest.raises(RuntimeError, match="Model 'm' needs an absolute base_path, got 'm'"):
        ServerProcess("--model-config-file", config, log=tmp_path / "log")


def test_it_loads_neither_keras_nor_tensorflow_probability(versions, tmp_path):
    """Nor any part of the library but the server: TensorFlow and the SavedModel alone."""
    port = free_port()
    program = """
        import json, os, signal, sys, threading, time, urllib.request

        port, *sys.argv[1:] = sys.argv[1:]
        sys.argv[0] = "rws-keras"  # as the program of this name starts

        from rws_keras.cli import main

        def report():
            url = f"http://127.0.0.1:{port}/v1/models/digits:predict"
            body = json.dumps({"instances": [[0] * 64]}).encode()
            for _ in range(600):
                try:
                    urllib.request.urlopen(url, body)
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                os._exit(1)
            modules = [name for name, module in list(sys.modules.items()) if module]
            print("MODULES", json.dumps(modules), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=report, daemon=True).start()
        main()
    """
    command = [port, "serve", "--models", versions.parent, "--rest-port", port, "--grpc-port", 0]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("MODULES ")]
    modules = set(json.loads(line.removeprefix("MODULES ")))
    assert "tensorflow" in modules
    packages = {name.split(".")[0] for name in modules}
    assert not packages & {"keras", "tf_keras", "tensorflow_probability", "pandas", "sklearn"}
    ours = {name.split(".")[1] for name in modules if name.startswith("rws_keras.")}
    assert ours <= {"cli", "errors", "files", "resources", "serving", "suggestions", "version"}
    assert not any(name.startswith("rws_keras.serving.export") for name in modules)
