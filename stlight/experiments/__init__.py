"""Experiments as their YAML files state them, and the runs that they need at a scale. Imports no torch."""

from stlight.experiments.loading import load_plan, load_scale
from stlight.experiments.plan import Experiment, Plan, Variant
from stlight.experiments.scaling import Scale
from stlight.experiments.yaml_files import ExperimentError

__all__ = ["Experiment", "ExperimentError", "Plan", "Scale", "Variant", "load_plan", "load_scale"]
