"""Settings, inputs and targets of the Snakemake rules."""

from stlight.workflow_support.jobs import folder_of, image, interpreter, newer_than, retries
from stlight.workflow_support.settings import Settings
from stlight.workflow_support.suite import Workflow, any_of

__all__ = ["Settings", "Workflow", "any_of", "folder_of", "image", "interpreter", "newer_than", "retries"]
