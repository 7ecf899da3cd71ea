"""The profiles of the repository where Snakemake looks for them by name; `make profiles` runs this module."""

import os
from pathlib import Path

from mlip_auto.snakemake_run import REPO


def link_profiles() -> list[str]:
    """Link profiles/* into the user's folder of Snakemake, so that `snakemake --profile slurm` finds them.

    A profile of the user's own of that name stays. Returns a line for each that was linked or stays.
    """
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "snakemake"
    lines = []
    for profile in sorted(path.parent for path in (REPO / "profiles").glob("*/config.yaml")):
        link = folder / profile.name
        if link.is_symlink() and link.resolve() == profile.resolve():
            continue
        if link.exists() or link.is_symlink():
            lines.append(f"{link} is your own: it stays; the shipped one is {profile}.")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        link.symlink_to(profile.resolve())
        lines.append(f"Linked {link}: `--profile {profile.name}` now works from any folder.")
    return lines


if __name__ == "__main__":
    print("\n".join(link_profiles()) or "The profiles are linked already.")
