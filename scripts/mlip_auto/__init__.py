"""mlip-auto: machine-learning interatomic potentials by unattended active learning."""

from importlib.metadata import version

__version__ = version("mlip-auto")
