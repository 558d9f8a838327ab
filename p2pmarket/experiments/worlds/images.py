"""Agents that train networks on images and are each short of some classes: the paper's section 6.1.1.

Knows: the section [images] and who has which images. A round is an epoch. In the honest protocol the broker's images
are held out of the training data and split into SELECT and REPORT; in the paper's they are the test images, for both.
Refuses to know: files and sizes of images (image_data.py), how shares and classes are written (image_shares.py), one
agent's training (image_learner.py), how a broker merges. Raises `ScenarioError` for an endowment that cannot be,
`DataError` for images that are not there, `ModelError` for a model that is none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from p2pmarket.appraisal.validation import Validation
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.service import build_bench
from p2pmarket.datasets import Dataset, relabelled, split, subset_by_class
from p2pmarket.errors import ModelError, ScenarioError
from p2pmarket.experiments.table import Table
from p2pmarket.experiments.worlds.contract import ACCURACY, HONEST, MARKET, METHODS, UNALIGNED, AgentPlan, Place
from p2pmarket.experiments.worlds.image_data import few, loaded
from p2pmarket.experiments.worlds.image_learner import ImageLearner, Training
from p2pmarket.experiments.worlds.image_shares import CLASSES, Groups, ImageEndowment, each, read_groups, read_scarce
from p2pmarket.experiments.worlds.paper_broker import GRID, PaperAppraiser
from p2pmarket.market import MarketTerms
from p2pmarket.models import build_model
from p2pmarket.simulation.chance import stream

_INPUTS = {"mlp": "inputs", "wide_resnet": "channels", "resnet20": "channels"}
"""What the models here call the size that follows from the images."""
_SELECT_FRACTION = 0.5


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """The section [images]."""

    KEY: ClassVar[str] = "images"
    METHODS: ClassVar[tuple[str, ...]] = METHODS
    metric: ClassVar[str] = ACCURACY

    data: str
    """One of image_shares.CLASSES."""
    size: int | None
    """Side in pixels; None: as the images are."""
    train_images: int
    """How many of the training images there are for all, drawn at random; 0: all."""
    test_images: int
    mean: tuple[float, ...]
    """Of each channel, in 0 ... 1, taken off; none: the images stay as they are."""
    deviation: tuple[float, ...]
    model: str
    arguments: Mapping[str, Any]
    """Without what follows from the images and the task."""
    training: Training
    broker_images: int
    """Held out in the honest protocol; also where there is no broker, so that agents have the same data."""
    coefficients: tuple[float, ...]
    """Of the paper's broker."""
    groups: Mapping[str, Groups]
    """Task -> its classes, each with the data set's classes that it is made of."""

    @classmethod
    def read(cls, table: Table) -> ImageSettings:
        """
        :raises ScenarioError: names the wrong key
        """
        data = table.text("data", choices=tuple(CLASSES))
        size = table.whole("size", 0, high=512)
        settings = cls(
            data=data,
            size=size or None,
            train_images=table.whole("train_images", 0),
            test_images=table.whole("test_images", 0),
            mean=_numbers(table, "mean", []),
            deviation=_numbers(table, "deviation", []),
            model=table.text("model"),
            arguments=table.table("arguments"),
            training=Training(
                optimizer=table.text("optimizer", "sgd", ("sgd", "adam")),
                learning_rate=table.number("learning_rate", 0.01, high=100.0),
                momentum=table.number("momentum", 0.0, high=1.0),
                batch_size=table.whole("batch_size", 64, low=1, high=1_000_000),
                reset_optimizer=table.flag("reset_optimizer", False),
            ),
            broker_images=table.whole("broker_images", 5000, low=4),
            coefficients=_numbers(table, "coefficients", list(GRID)),
            groups=read_groups(table, CLASSES[data]),
        )
        if bool(settings.mean) != bool(settings.deviation):
            raise ScenarioError(f"{table.where} needs both mean and deviation, or neither")
        if settings.training.momentum and settings.training.optimizer != "sgd":
            raise ScenarioError(
                f"momentum in {table.where} is of sgd and means nothing to {settings.training.optimizer}; leave it out"
            )
        if "outputs" in settings.arguments:
            raise ScenarioError(
                f"arguments in {table.where} has outputs, which follows from a task's classes; leave it out"
            )
        if not settings.coefficients or not all(0 < one <= 1 for one in settings.coefficients):
            raise ScenarioError(f"coefficients in {table.where} are numbers above 0 and up to 1, at least one")
        return settings

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names; the first is the default."""
        return tuple(self.groups)

    def endowment(self, table: Table) -> ImageEndowment:
        """
        :raises ScenarioError: an endowment that cannot be
        """
        seed = table.whole("seed", 0)
        endowment = ImageEndowment(
            share=table.number("share", 1.0, high=1.0),
            scarce=read_scarce(table, CLASSES[self.data]),
            keep=table.number("keep", 0.1, high=1.0),
            shuffled=table.flag("shuffled", False),
            seed=seed if "seed" in table else None,
        )
        if "keep" in table and "scarce" not in table:
            raise ScenarioError(
                f"{table.where} has keep, the part of its scarce classes that it has, and no scarce; add scarce, or "
                "leave keep out"
            )
        if endowment.share == 0 or (endowment.keep == 0 and len(endowment.scarce) == CLASSES[self.data]):
            raise ScenarioError(f"{table.where} would have no image to learn from; raise share or keep")
        return endowment

    def build(self, agents: Sequence[AgentPlan], *, method: str, protocol: str, seed: int, place: Place) -> Images:
        """The world of one run."""
        return Images(self, agents, method=method, honest=protocol == HONEST, seed=seed, place=place)


class Images:
    """One run's world."""

    def __init__(
        self,
        settings: ImageSettings,
        agents: Sequence[AgentPlan],
        *,
        method: str,
        honest: bool,
        seed: int,
        place: Place,
    ) -> None:
        data = loaded(settings.data, place.data, size=settings.size, mean=settings.mean, deviation=settings.deviation)
        self._settings = settings
        self._method = method
        self._seed = seed
        self._device = _device(place.device)
        self._shape = data.shape
        train = few(data.train, settings.train_images, _number(seed, "train images"))
        test = few(data.test, settings.test_images, _number(seed, "test images"))
        tests = {task: self._for_task(test, task) for task in settings.tasks}
        if honest:
            if settings.broker_images >= len(train):
                raise ScenarioError(
                    f"broker_images in [images] is {settings.broker_images}, and there are {len(train)} training "
                    "images for agents and broker together"
                )
            share = settings.broker_images / len(train)
            held, train = split(train, (share, 1 - share), _number(seed, "broker"))
            self._validations = {
                task: Validation.split(
                    part.inputs, part.targets, select_fraction=_SELECT_FRACTION, seed=_number(seed, "select")
                )
                for task, part in ((task, self._for_task(held, task)) for task in settings.tasks)
            }
        else:
            self._validations = {
                task: Validation.of(part.inputs, part.targets, part.inputs, part.targets)
                for task, part in tests.items()
            }
        near = {task: self._near(part) for task, part in tests.items()}
        shared = {
            task: self._near(self._for_task(train, task))
            for task in dict.fromkeys(plan.task for plan in agents if plan.endowment.whole)
        }
        self.learners = tuple(
            self._learner(plan, shared[plan.task] if plan.endowment.whole else self._part(plan, train), near[plan.task])
            for plan in agents
        )
        whose = f"{len(held)} images of its own" if honest else "the test images"
        used = len(train) + (len(held) if honest else 0), len(test)
        few_are = "" if used == (len(data.train), len(data.test)) else f", {used[0]} and {used[1]} of them used"
        self.about = f"{data.about}{few_are}; the model {settings.model}; the broker has {whose}"

    def terms(self) -> dict[str, Any]:
        """[model] and [[task]]."""
        return {
            "model": {"name": self._settings.model, "arguments": {**self._sizes(), **self._settings.arguments}},
            "task": [
                {
                    "name": task,
                    "loss": "cross_entropy",
                    "metric": "accuracy",
                    "arguments": {"outputs": self._outputs(task)},
                }
                for task in self._settings.tasks
            ],
        }

    def appraiser(self, terms: MarketTerms) -> Appraiser:
        """Our broker's, or the paper's; in float32 alone and without a time limit, so that equal seeds give equal rows
        however fast a machine is. How often a matching visits its units is bounded anyway."""
        benches = {
            task.name: build_bench(
                terms, task, self._validations[task.name], device=self._device, precision="float32"
            )
            for task in terms.tasks
        }  # fmt: skip
        if self._method == MARKET:
            appraiser = Appraiser(terms, benches, seed=self._seed, matching_seconds=math.inf)
        else:
            appraiser = PaperAppraiser(
                terms,
                benches,
                seed=self._seed,
                coefficients=self._settings.coefficients,
                aligned=self._method != UNALIGNED,
            )
        appraiser.self_test()
        return appraiser

    def _part(self, plan: AgentPlan, train: Dataset) -> Dataset:
        """A copy of the images that an agent has, with its task's labels."""
        endowment: ImageEndowment = plan.endowment
        drawn = _number(self._seed, f"data {plan.name}")
        part = train if endowment.share == 1 else split(train, (endowment.share,), drawn)[0]
        if endowment.scarce:
            part = subset_by_class(part, dict.fromkeys(endowment.scarce, endowment.keep), drawn)
        return self._for_task(part, plan.task)

    def _learner(self, plan: AgentPlan, part: Dataset, test: Dataset) -> ImageLearner:
        endowment: ImageEndowment = plan.endowment
        if endowment.shuffled:
            dealer = torch.Generator().manual_seed(_number(self._seed, f"labels {plan.name}"))
            part = Dataset(part.inputs, part.targets[torch.randperm(len(part), generator=dealer)])
        first = _number(self._seed, f"model {plan.name}") if endowment.seed is None else endowment.seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(first)
            model = self._model(plan.task)
        about = f"{len(part)} images"
        if endowment.scarce:
            about += f", {endowment.keep:.0%} of the classes {', '.join(map(str, endowment.scarce))}"
        if endowment.shuffled:
            about += ", with shuffled labels"
        return ImageLearner(
            model,
            part,
            test,
            self._settings.training,
            batches=_number(self._seed, f"batches {plan.name}"),
            draws=_number(self._seed, f"draws {plan.name}"),
            device=self._device,
            about=about,
        )

    def _model(self, task: str) -> nn.Module:
        arguments = {**self._sizes(), **self._settings.arguments, "outputs": self._outputs(task)}
        return build_model(self._settings.model, arguments, allow_import=True)

    def _sizes(self) -> dict[str, int]:
        channels, height, width = self._shape
        sizes = {"inputs": channels * height * width, "channels": channels}
        key = _INPUTS.get(self._settings.model)
        return {key: sizes[key]} if key else {}

    def _outputs(self, task: str) -> int:
        return len(self._settings.groups[task])

    def _near(self, part: Dataset) -> Dataset:
        return Dataset(part.inputs.to(self._device), part.targets.to(self._device))

    def _for_task(self, part: Dataset, task: str) -> Dataset:
        groups = self._settings.groups[task]
        plain = groups == each(CLASSES[self._settings.data])
        return part if plain else relabelled(part, groups)


def _number(seed: int, purpose: str) -> int:
    return stream(seed, purpose).getrandbits(32)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as reason:
        raise ModelError(f"device {name!r} cannot be used: {str(reason).splitlines()[0]}") from None
    return name


def _numbers(table: Table, key: str, default: list[float]) -> tuple[float, ...]:
    values = table.many(key, default)
    if not all(type(value) in (int, float) for value in values):
        raise ScenarioError(f"{key} in {table.where} is a list of numbers, not {values!r}")
    return tuple(float(value) for value in values)
