"""Which experiments of the paper there are, by the names of the command line, and where their scenario files lie.

Knows: names, modules and folders. Refuses to know: what an experiment does; its module is imported when it is asked
for, so that a list of names costs nothing. A name that is none, or scenario files that are nowhere, raise
`SettingsError`.
"""

from __future__ import annotations

import importlib
import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, cast

from p2pmarket.errors import SettingsError

if TYPE_CHECKING:
    from p2pmarket.paper.finding import Experiment

EXPERIMENTS = {
    "table-1-mnist": "table_1:MNIST",
    "table-1-cifar10": "table_1:CIFAR10",
    "table-1-tinyimagenet": "table_1:TINY_IMAGENET",
    "table-1-resnet-small": "table_1:RESNET_SMALL",
    "table-2": "table_2",
    "figure-2": "figure_2",
    "figure-3": "figure_3",
    "figure-4": "figure_4",
    "figure-5": "figure_5",
    "theorem-4.1": "theorem_4_1",
    "theorem-5.1": "theorem_5_1",
    "three-agents": "three_agents",
    "tasks-and-heads": "tasks_and_heads",
    "competitive": "competitive",
}
"""Name -> the module that is the experiment, or module:NAME where one holds several; in the paper's order."""
INSTALLED = Path("share", "p2pmarket", "paper")
"""Where a wheel puts the scenario files, below the environment."""


def experiment(name: str) -> Experiment:
    """The experiment of that name.

    :raises SettingsError: there is none
    """
    if name not in EXPERIMENTS:
        raise SettingsError(f"there is no experiment {name!r}; there are {', '.join(EXPERIMENTS)}, and all")
    module, _, attribute = EXPERIMENTS[name].partition(":")
    found = importlib.import_module(f"p2pmarket.paper.{module}")
    return cast("Experiment", getattr(found, attribute) if attribute else found)


def scenario_folder(given: Path | None = None) -> Path:
    """The folder of the paper's scenario files: the one given, that of a checkout, or where a wheel installed them.

    :raises SettingsError: there is none
    """
    if given is not None:
        if not given.is_dir():
            raise SettingsError(f"--scenarios {given} is no folder; name the one with figure-3.toml in it")
        return given
    environments = [sysconfig.get_path("data"), sysconfig.get_path("data", f"{os.name}_user")]
    checkout = Path(__file__).parents[2] / "examples" / "paper"
    for folder in (checkout, *(Path(one) / INSTALLED for one in environments)):
        if (folder / "figure-3.toml").is_file():
            return folder
    raise SettingsError("the paper's scenario files are nowhere here; name their folder with --scenarios")
