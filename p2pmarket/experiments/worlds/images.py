"""Agents that train networks on images and are each short of some classes: the paper's section 6.1.1.

Knows: the section [images] and who has which images. A round is an epoch. In the honest protocol the broker's images
are held out of the training data and split into SELECT and REPORT; in the paper's they are the test images, for both.
Refuses to know: files (datasets), one agent's training (image_learner.py), how a broker merges. Raises `ScenarioError`
for an endowment that cannot be, `DataError` for images that are not there, `ModelError` for a model that is none.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from p2pmarket.appraisal.validation import Validation
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.service import build_bench
from p2pmarket.datasets import (
    IMAGE_SETS,
    Dataset,
    ImageData,
    find_images,
    load_images,
    relabelled,
    split,
    standardised,
    subset_by_class,
)
from p2pmarket.errors import ModelError, ScenarioError
from p2pmarket.experiments.document import Table
from p2pmarket.experiments.worlds.contract import HONEST, MARKET, METHODS, UNALIGNED, AgentPlan, Place
from p2pmarket.experiments.worlds.image_learner import ImageLearner, Training
from p2pmarket.experiments.worlds.paper_broker import GRID, PaperAppraiser
from p2pmarket.market import MarketTerms
from p2pmarket.models import build_model
from p2pmarket.simulation.chance import stream

_CLASSES = {name: 200 if name == "tinyimagenet" else 10 for name in IMAGE_SETS}
_HALVES = ("first-half", "second-half")
_ALL = "all"
_INPUTS = {"mlp": "inputs", "wide_resnet": "channels", "resnet20": "channels"}
"""What the models here call the size that follows from the images."""
_SELECT_FRACTION = 0.5

Groups = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class ImageEndowment:
    """What one agent can learn from."""

    share: float
    """Part of the training images, drawn at random."""
    scarce: tuple[int, ...]
    """Classes of the data set that it is short of."""
    keep: float
    """Part of its scarce classes that it has."""
    shuffled: bool
    """Whether its labels are dealt out among its images: what it learns is of no use to anybody."""
    seed: int | None
    """Of its first parameters, for torch.manual_seed; None: from the run's."""


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """The section [images]."""

    KEY: ClassVar[str] = "images"
    METHODS: ClassVar[tuple[str, ...]] = METHODS

    data: str
    """One of datasets.IMAGE_SETS."""
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
        data = table.text("data", choices=IMAGE_SETS)
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
            groups=_groups(table, _CLASSES[data]),
        )
        if bool(settings.mean) != bool(settings.deviation):
            raise ScenarioError(f"{table.where} needs both mean and deviation, or neither")
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
            scarce=_scarce(table, _CLASSES[self.data]),
            keep=table.number("keep", 0.1, high=1.0),
            shuffled=table.flag("shuffled", False),
            seed=seed if "seed" in table else None,
        )
        if endowment.share == 0 or (endowment.keep == 0 and len(endowment.scarce) == _CLASSES[self.data]):
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
        data = _loaded(settings, find_images(settings.data, place.data))
        self._settings = settings
        self._method = method
        self._seed = seed
        self._device = _device(place.device)
        self._shape = data.shape
        train = _few(data.train, settings.train_images, _number(seed, "train images"))
        test = _few(data.test, settings.test_images, _number(seed, "test images"))
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
        near = {
            task: Dataset(part.inputs.to(self._device), part.targets.to(self._device)) for task, part in tests.items()
        }
        self.learners = tuple(self._learner(plan, train, near[plan.task]) for plan in agents)
        whose = f"{settings.broker_images} images of its own" if honest else "the test images"
        self.about = f"{data.about}; the model {settings.model}; the broker has {whose}"

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
        """Our broker's, or the paper's; in float32 alone, so that equal seeds give equal rows on any machine."""
        benches = {
            task.name: build_bench(
                terms, task, self._validations[task.name], device=self._device, precision="float32"
            )
            for task in terms.tasks
        }  # fmt: skip
        if self._method == MARKET:
            appraiser = Appraiser(terms, benches, seed=self._seed)
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

    def _learner(self, plan: AgentPlan, train: Dataset, test: Dataset) -> ImageLearner:
        endowment: ImageEndowment = plan.endowment
        drawn = _number(self._seed, f"data {plan.name}")
        part = train if endowment.share == 1 else split(train, (endowment.share,), drawn)[0]
        part = subset_by_class(part, dict.fromkeys(endowment.scarce, endowment.keep), drawn)
        part = self._for_task(part, plan.task)
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
        batches = _number(self._seed, f"batches {plan.name}")
        return ImageLearner(
            model, part, test, self._settings.training, seed=batches, device=self._device, about=about
        )  # fmt: skip

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

    def _for_task(self, part: Dataset, task: str) -> Dataset:
        groups = self._settings.groups[task]
        plain = groups == _each(_CLASSES[self._settings.data])
        return part if plain else relabelled(part, groups)


@functools.lru_cache(maxsize=1)
def _images(name: str, source: Path, size: int | None, changed_ns: int) -> ImageData:
    data = load_images(name, source, size=size if name == "tinyimagenet" else None)
    train, test = (_with_channels(part, size) for part in (data.train, data.test))
    channels, *_ = data.shape
    height, width = train.inputs.shape[2:]
    return dataclasses.replace(data, train=train, test=test, shape=(channels, height, width))


def _loaded(settings: ImageSettings, source: Path) -> ImageData:
    """Kept for the next run of this process, which has mostly the same."""
    changed_ns = source.stat().st_mtime_ns if source.exists() else 0
    data = _images(settings.data, source, settings.size, changed_ns)
    return standardised(data, settings.mean, settings.deviation) if settings.mean else data


def _with_channels(data: Dataset, size: int | None) -> Dataset:
    """(N, H, W) -> (N, 1, H, W), and of another size by the means of the pixels that a new one covers."""
    images = data.inputs if data.inputs.ndim == 4 else data.inputs.unsqueeze(1)
    if size and images.shape[2:] != (size, size):
        images = torch.cat(
            [nn.functional.interpolate(few, (size, size), mode="area") for few in torch.split(images, 4096)]
        )
    return Dataset(images, data.targets)


def _few(data: Dataset, count: int, seed: int) -> Dataset:
    if count == 0 or count >= len(data):
        return data
    return split(data, (count / len(data),), seed)[0]


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


def _each(classes: int) -> Groups:
    return tuple((label,) for label in range(classes))


def _groups(table: Table, classes: int) -> Mapping[str, Groups]:
    found: dict[str, Groups] = {}
    for name, value in (table.table("tasks") or {"images": _ALL}).items():
        if value == _ALL:
            found[name] = _each(classes)
            continue
        known = isinstance(value, list) and all(
            isinstance(group, list) and group and all(type(one) is int and 0 <= one < classes for one in group)
            for group in value
        )
        labels = [label for group in value for label in group] if known else []
        if not known or len(value) < 2 or len(set(labels)) < len(labels):
            raise ScenarioError(
                f'tasks.{name} in {table.where} is "all", or at least two lists of classes from 0 to {classes - 1}, '
                "no class in two of them, such as [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]"
            )
        found[name] = tuple(map(tuple, value))
    return found


def _scarce(table: Table, classes: int) -> tuple[int, ...]:
    if "scarce" not in table:
        table.many("scarce", [])  # known from now on
        return ()
    try:
        half = table.text("scarce", choices=_HALVES)
        return tuple(range(classes // 2) if half == _HALVES[0] else range(classes // 2, classes))
    except ScenarioError:
        pass
    try:
        labels = table.many("scarce")
    except ScenarioError:
        labels = [None]
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise ScenarioError(
            f"scarce in {table.where} is {_HALVES[0]}, {_HALVES[1]}, or a list of classes from 0 to {classes - 1}"
        )
    return tuple(sorted(set(labels)))
