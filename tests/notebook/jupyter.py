#!/usr/bin/env python3
"""Runs the kernel in real Jupyter: nbclient, and a Jupyter server's REST and websocket interface.

    python3 tests/notebook/jupyter.py [folder for the virtual environment]

Needs network for the first run (PyPI). Installs the kernelspec into a temporary Jupyter folder; nothing else changes.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

PACKAGES = ["jupyterlab==4.4.9", "nbclient==0.10.2", "nbconvert==7.16.6"]
ROOT = Path(__file__).resolve().parents[2]

FIGURE = """import { check, show, showFigure } from 'response-time/notebook/display';
show([{ name: 'f32', bytes: 4 }, { name: 'int8', bytes: 1 }]);
await showFigure({ data: [{ type: 'bar', x: ['f32', 'int8'], y: [4, 1] }], layout: { title: { text: 'Bytes' } } });
check('ratio', 4, { atLeast: 3.9 });"""


def ensure_environment(folder: Path) -> Path:
    """Makes the virtual environment when it is missing; returns its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    missing = subprocess.run([python, "-c", "import jupyterlab, nbclient, nbconvert"], capture_output=True).returncode
    if missing:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
    return python


def install_kernel(data_folder: Path) -> None:
    install = f"import({json.dumps((ROOT / 'lib/dist/notebook/install.js').as_uri())}).then((m) => m.installKernel())"
    subprocess.run(["node", "-e", install], check=True, env={**os.environ, "JUPYTER_DATA_DIR": str(data_folder)})


def expect(name: str, passed: bool, received: object) -> None:
    if not passed:
        sys.exit(f"FAIL {name}: received {received}")
    print(f"PASS {name}", flush=True)


def test_nbclient() -> None:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from nbconvert import HTMLExporter

    cell = nbformat.v4.new_code_cell
    lines = "for (let i = 0; i < 2000; i++) console.log(i);\n[1, 2]"
    notebook = nbformat.v4.new_notebook(cells=[cell(FIGURE), cell(lines)])
    notebook.metadata.kernelspec = {"name": "tslab", "display_name": "TypeScript", "language": "typescript"}
    with tempfile.TemporaryDirectory() as elsewhere:
        NotebookClient(notebook, resources={"metadata": {"path": elsewhere}}, timeout=60).execute()
    first, second = (one.outputs for one in notebook.cells)
    expect("nbclient: a table", first[0].data["text/plain"].startswith("name  bytes"), first[0])
    types = set(first[1].data)
    expect("nbclient: a figure", types == {"image/png", "application/vnd.plotly.v1+json", "text/plain"}, types)
    expect("nbclient: a check", "PASS ratio" in first[2].text, first[2])
    text = "".join(one.text for one in second if one.output_type == "stream")
    expect("nbclient: 2,000 lines", text.split() == [str(i) for i in range(2000)], len(text.split()))
    expect("nbclient: a result", second[-1].data["text/plain"] == "[ 1, 2 ]", second[-1])
    html, _ = HTMLExporter().from_notebook_node(notebook)
    expect("nbconvert: shows the PNG", "data:image/png;base64" in html, len(html))

    failing = nbformat.v4.new_notebook(cells=[cell("const n: string = 1;")], metadata=notebook.metadata)
    try:
        NotebookClient(failing, timeout=60).execute()
        expect("nbclient: a type error", False, "no error")
    except CellExecutionError as error:
        expect("nbclient: a type error", "TypeScriptError" in str(error) and "1:7 - " in str(error), error)


class Server:
    """A Jupyter server on a free port, asked by REST and by websocket."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        options = ["--no-browser", f"--port={port}", f"--IdentityProvider.token={self.token}", "--allow-root"]
        command = [sys.executable, "-m", "jupyter", "server", *options, f"--ServerApp.root_dir={folder}"]
        log = folder / "server.log"
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        deadline = time.time() + 60
        while not self.answers() and time.time() < deadline and self.process.poll() is None:
            time.sleep(0.2)
        expect("server: starts", self.answers(), log.read_text())

    def answers(self) -> bool:
        try:
            return self.ask("GET", "status") is not None
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None):
        request = urllib.request.Request(f"http://{self.address}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=60) as response:
            text = response.read()
            return json.loads(text) if text else None

    def connect(self, kernel: str):
        import websocket

        url = f"ws://{self.address}/api/kernels/{kernel}/channels?token={self.token}"
        return websocket.create_connection(url, timeout=60)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def send(connection, code: str) -> str:
    identifier = secrets.token_hex(8)
    header = {"msg_id": identifier, "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
    message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
    connection.send(json.dumps(message))
    return identifier


def receive(connection, identifier: str) -> tuple[dict, list[tuple[str, dict]]]:
    """The reply, and the outputs up to the idle message."""
    reply, outputs, idle = None, [], False
    while reply is None or not idle:
        message = json.loads(connection.recv())
        if message["parent_header"].get("msg_id") != identifier:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "execute_reply":
            reply = content
        elif kind == "status":
            idle = idle or content["execution_state"] == "idle"
        else:
            outputs.append((kind, content))
    return reply, outputs


def test_server(folder: Path) -> None:
    server = Server(folder)
    try:
        specs = server.ask("GET", "kernelspecs")["kernelspecs"]
        expect("server: lists the kernel", specs["tslab"]["spec"]["display_name"] == "TypeScript (response-time)", specs)
        kernel = server.ask("POST", "kernels", {"name": "tslab"})["id"]
        connection = server.connect(kernel)
        reply, outputs = receive(connection, send(connection, FIGURE))
        kinds = [kind for kind, _ in outputs]
        expected = ["execute_input", "display_data", "display_data", "stream"]
        expect("server: messages of a cell", reply["status"] == "ok" and kinds == expected, (reply, kinds))

        reply, outputs = receive(connection, send(connection, "throw new RangeError('too far')"))
        names = (reply["ename"], reply["evalue"], outputs[-1][0])
        expect("server: an error", names == ("RangeError", "too far", "error"), names)

        identifier = send(connection, "while (true) {}")
        time.sleep(1.5)
        server.ask("POST", f"kernels/{kernel}/interrupt")
        reply, _ = receive(connection, identifier)
        expect("server: an interrupt ends an endless loop", reply["status"] == "error", reply)

        receive(connection, send(connection, "const kept = 1;"))
        server.ask("POST", f"kernels/{kernel}/restart")
        connection.close()
        connection = server.connect(kernel)
        reply, _ = receive(connection, send(connection, "kept"))
        expect("server: a restart forgets", reply["status"] == "error" and "kept" in reply["evalue"], reply)
        _, outputs = receive(connection, send(connection, "process.pid"))
        pid = int(outputs[-1][1]["data"]["text/plain"])
        server.ask("DELETE", f"kernels/{kernel}")
        connection.close()
        deadline = time.time() + 10
        while is_alive(pid) and time.time() < deadline:
            time.sleep(0.1)
        expect("server: a shutdown ends the process", not is_alive(pid), pid)
    finally:
        server.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return True
    except OSError:
        return False


def main() -> None:
    if os.environ.get("RESPONSE_TIME_JUPYTER_TEST") != "1":
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir() + "/response-time-jupyter")
        python = ensure_environment(folder)
        environment = {**os.environ, "RESPONSE_TIME_JUPYTER_TEST": "1"}
        sys.exit(subprocess.run([python, __file__], env=environment).returncode)
    with tempfile.TemporaryDirectory() as folder:
        # Only this kernel, from a folder of its own; no settings of the user's.
        for name in ("DATA", "CONFIG", "RUNTIME"):
            os.environ[f"JUPYTER_{name}_DIR"] = f"{folder}/{name.lower()}"
        install_kernel(Path(folder, "data"))
        test_nbclient()
        test_server(Path(folder))


main()
