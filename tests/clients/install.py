"""Installs a client in a folder of its own under .clients, at the version that versions.toml pins."""

import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CLIENTS = HERE.parent.parent / ".clients"
INSTALL_SECONDS = 900


@dataclass(frozen=True)
class Client:
    """One entry of versions.toml. driven: how the test uses it, for the table.

    pip_bare: packages to be installed without what they depend on. large: tested only where named.
    expected: words of refusals that the client is made for.
    """

    name: str
    driven: str
    npm: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    pip_bare: tuple[str, ...] = ()
    large: bool = False
    expected: tuple[str, ...] = ()
    seconds: int = 600

    @property
    def folder(self) -> Path:
        return CLIENTS / self.name

    @property
    def versions(self) -> list[str]:
        """The pinned packages, each as name and version."""
        return [
            package.replace("==", " ") if "==" in package else " ".join(package.rsplit("@", 1))
            for package in (*self.npm, *self.pip_bare, *self.pip)
            if "==" in package or package.rfind("@") > 0
        ]

    @property
    def driver(self) -> Path:
        """A Python file, or JavaScript for a library of that language."""
        script = HERE / "drivers" / f"drive_{self.name.replace('-', '_')}.mjs"
        return script if script.exists() else script.with_suffix(".py")


def all_clients() -> list[Client]:
    listed = tomllib.loads((HERE / "versions.toml").read_text())
    return [
        Client(name, **{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
        for name, entry in listed.items()
    ]


def install(client: Client) -> None:
    """Does nothing where these versions are there already. Raises CalledProcessError or TimeoutExpired."""
    stamp = client.folder / "installed.json"
    wanted = json.dumps([client.npm, client.pip, client.pip_bare])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    client.folder.mkdir(parents=True, exist_ok=True)
    if client.npm:
        _install_npm(client)
    if client.pip:
        _install_pip(client)
    stamp.write_text(wanted)


def _install_npm(client: Client) -> None:
    """The install scripts of the clients themselves run, as npm asks their users to allow; those of others do not."""
    allowed = {package.rsplit("@", 1)[0]: True for package in client.npm}
    manifest = {"private": True, "type": "module", "allowScripts": allowed}
    (client.folder / "package.json").write_text(json.dumps(manifest))
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    subprocess.run(["npm", "install", *options, *client.npm], cwd=client.folder, check=True, timeout=INSTALL_SECONDS)


def _install_pip(client: Client) -> None:
    python = client.folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", client.folder], check=True, timeout=INSTALL_SECONDS)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*command, *client.pip], check=True, timeout=INSTALL_SECONDS)
    if client.pip_bare:
        subprocess.run([*command, "--no-deps", *client.pip_bare], check=True, timeout=INSTALL_SECONDS)
