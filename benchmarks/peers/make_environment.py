"""Make a peer's environment: `python benchmarks/peers/make_environment.py torch_rechub`.

Each peer has an environment of its own below benchmarks/peers/.environments, with the versions of
benchmarks/peers/requirements: their dependencies contradict each other's and ours. `all` makes all
of them, one after the other.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).resolve().parent
REQUIREMENTS = PEERS / "requirements"
ENVIRONMENTS = PEERS / ".environments"


def peer_names() -> list[str]:
    """All peers, by their requirements."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def make_environment(name: str) -> None:
    """Install a peer; `installed.txt`, written last, says what its environment holds.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    folder = ENVIRONMENTS / name
    ENVIRONMENTS.mkdir(exist_ok=True)
    (ENVIRONMENTS / ".gitignore").write_text("*\n")
    venv.EnvBuilder(with_pip=True, clear=True).create(folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip"]
    subprocess.run(
        [*pip, "install", "--quiet", "--requirement", REQUIREMENTS / f"{name}.txt"], check=True
    )
    frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    (folder / "installed.txt").write_text(frozen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name", choices=[*peer_names(), "all"])
    name = parser.parse_args().name
    for peer in peer_names() if name == "all" else [name]:
        print(f"installing {peer} in {ENVIRONMENTS / peer}", file=sys.stderr, flush=True)
        make_environment(peer)


if __name__ == "__main__":
    main()
