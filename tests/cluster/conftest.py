"""A Slurm of its own and a hard time limit for each test of this folder, and campaigns that leave nothing behind."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from mini_slurm import MiniSlurm, find_obstacle

from campaign import ROOT, TINY, Campaign
from tables import Table, open_table

PATIENCE = 600.0  # s for anything that is waited for on a busy machine; a job of tiny.yaml takes 5 to 20 s


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def allowed_seconds() -> int:
    """For one test; a hang of Snakemake must not hang CI. A file may have its own."""
    return 1800


@pytest.fixture(autouse=True)
def time_limit(allowed_seconds) -> Iterator[None]:
    def give_up(number: int, frame: object) -> None:
        raise TimeoutError(f"the test took more than {allowed_seconds} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(allowed_seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def slurm(tmp_path_factory) -> Iterator[MiniSlurm]:
    """A cluster that no other test sees: it is up in a second."""
    if obstacle := find_obstacle():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no Slurm for the tests: {obstacle}")
    with MiniSlurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


@pytest.fixture
def make_profile(tmp_path) -> Callable[..., Path]:
    """profiles/slurm as it is shipped, with what a site of two tiny nodes without sacct sets; more by rule."""

    def make(**resources: dict[str, object]) -> Path:
        content = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
        content |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1, "latency-wait": 10}
        content["default-resources"]["slurm_partition"] = "main"
        for rule, changed in resources.items():
            content["set-resources"][rule] |= changed
        folder = tmp_path / "profile"
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        return folder

    return make


@pytest.fixture
def make_campaign(slurm, make_profile, tmp_path) -> Iterator[Callable[..., Campaign]]:
    """Makes campaigns whose jobs go to Slurm; ends what a failed test left of them; Slurm ends their jobs."""
    made: list[Campaign] = []

    def make(config: Path = TINY, root: Path = tmp_path / "campaign", **resources: dict[str, object]) -> Campaign:
        profile = make_profile(**resources)
        made.append(Campaign(root, "--profile", profile, config=config, patience=PATIENCE))
        return made[-1]

    yield make
    for campaign in made:
        campaign.end()


@pytest.fixture(scope="session")
def one_generation(tmp_path_factory) -> Path:
    """tiny.yaml that stops after its first generation, with restart files that come early in its short MD."""
    content = yaml.safe_load(TINY.read_text())
    content["loop"]["max_generations"] = 1
    content["lammps"] = {"restart_every": 20}
    path = tmp_path_factory.mktemp("config") / "one_generation.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="session")
def run_undisturbed(tmp_path_factory) -> Callable[[Path], Campaign]:
    """Runs a config to its end without Slurm and without faults."""

    def run(config: Path) -> Campaign:
        campaign = Campaign(tmp_path_factory.mktemp("undisturbed"), "--cores", "2", config=config, patience=PATIENCE)
        code, output = campaign.finish()
        assert code == 3, output
        assert campaign.outcomes()[0]["md_900K"][0] == "halted"
        return campaign

    return run


@pytest.fixture(scope="session")
def undisturbed(one_generation, run_undisturbed) -> Campaign:
    return run_undisturbed(one_generation)


@pytest.fixture
def faults(pytestconfig) -> Table:
    header = ("fault", "what happened", "labels before", "lost", "computed twice", "end", "selection")
    return open_table(pytestconfig, "faults on a real Slurm", header)
