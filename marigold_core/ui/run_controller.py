"""What the screens of one open page share: the result on show, and the one path of every job to it.

A screen draws its own part of the page and returns what changes in it with a new result. The controller brings the
result: from the model (a run, members to add, a recorded run), an example or an earlier run.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar, cast

import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.events import Dependency

from marigold_core.calibration.calibrate import Hints, Measured
from marigold_core.errors import ExportError, ImageError
from marigold_core.files.manifest import Manifest
from marigold_core.images.photo import Photo, load_photo
from marigold_core.pipeline.convergence import EarlyStopping
from marigold_core.pipeline.views import most_members
from marigold_core.prediction import Prediction, Progress
from marigold_core.serving.jobs import Service
from marigold_core.settings import ColourSettings, Frozen, MeshSettings, ResolvedSettings, Settings
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.events import MODEL, NO_CHANGE, REPEATED, Queue, on, one_of_many
from marigold_core.ui.job_buttons import JobButtons
from marigold_core.ui.offered_checkpoints import family_of_result, offered_checkpoint
from marigold_core.ui.photo_input import draw_photo
from marigold_core.ui.templates import render

Update = dict[Component, Any]  # what changes in which widgets
Values = Mapping[Component, Any]  # what the widgets hold that an event was given
Model = TypeVar("Model", bound=Frozen)

# The browser may draw on the cores of the model, so the page is given a state of a job only so often.
STATE_S = 0.5  # from one to the next, at least
STATE_SHARE = 0.1  # of the time goes into making them, at most
THRESHOLD = 1.0  # per cent of the depth range: as near to the map of 20 members as 10 are (tests/bench/stopping.py)


class Pace:
    """Tells when the page may be given the next state of a job."""

    def __init__(self) -> None:
        self._next_at = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the state before was given long enough ago."""
        return perf_counter() >= self._next_at

    def wait(self, spent_s: float) -> None:
        """Note that the page has taken a state, on which so much time was spent."""
        self._next_at = perf_counter() + max(STATE_S, spent_s / STATE_SHARE)


@dataclass
class OpenTab:
    """Which tab of the results is seen; a job under way looks it up with every state."""

    name: str = text.DEPTH_TAB

    def set(self, name: str) -> None:
        """Note that another tab was opened."""
        self.name = name


@dataclass
class CurrentJob:
    """What the visitor asked for last, a job or a pick; it alone may change the page, and it looks that up here.

    The server decides this, in the order in which it hears of them: the browser ends a job late, and may end the one
    after it in its place.
    """

    identity: object | None = None  # None: it has ended
    source: object = ""  # the value of the input that it runs, None without one; "": it runs none of the input
    wanted: tuple[Any] | None = None  # the input of a run that was asked for and has not begun
    stopped: object | None = None  # the identity of the job that Stop has ended, until something else begins
    is_halted: bool = False  # whether Stop was pressed and nothing asked for since, and ``end`` is still to answer
    shown: str | None = None  # the file of the result on show, where a job has compared the two
    is_filled: bool = False  # whether a pick has put another photo into the input, maybe in the place of a newer one
    is_new: bool = True  # whether nothing was asked for so far

    def ask(self, source: Any) -> None:
        """Note that a photo is to be run, which ends what goes on, unless that runs the same one."""
        self.is_new = False
        if self.identity is None or source != self.source:
            self.identity, self.wanted, self.stopped, self.is_halted = None, (source,), None, False

    def halt(self) -> None:
        """Note that what goes on, or was asked for, is to end."""
        if self.identity is not None or self.wanted is not None:
            self.identity, self.wanted, self.stopped, self.is_halted = None, None, self.identity, True

    def take(self) -> tuple[Any] | None:
        """Return the photo whose run was asked for, if nothing was since; each is begun once."""
        wanted, self.wanted = self.wanted, None
        return wanted

    def begin(self, source: object = "", *, is_stop: bool = False) -> object:
        """Begin a job or a pick in the place of what goes on -> its identity."""
        self.is_new, self.stopped = False, self.stopped if is_stop else None
        self.identity, self.source, self.wanted, self.is_halted = object(), source, None, False
        return self.identity


class JobTab(ABC):
    """A tab of the page with Run and Stop, and the one path of its jobs; the server decides what Stop means."""

    status: gr.HTML
    actions: JobButtons
    queue: Queue = MODEL

    def __init__(self, service: Service) -> None:
        """Begin without a result."""
        self.service = service
        self.result = gr.State(None)  # id of what is on show
        self.current = gr.State(CurrentJob())

    def connect_job(
        self,
        run: Callable[[Any, Values], Generator[Update]],
        triggers: Sequence[Callable[..., Any]],
        source: Component,
        given: AbstractSet[Component],
        changed: Sequence[Component],
    ) -> tuple[Dependency, Dependency]:
        """Run what is in an input at each trigger, and end that at Stop and where the input is emptied -> both events.

        ``run`` is called with the value of the input and with those of the ``given`` widgets.
        """

        def on_run(values: Values) -> Iterator[Update]:
            wanted = values[self.current].take()
            if wanted:
                yield from self.reported(run(wanted[0], values), values, wanted[0])
            else:  # something else was asked for since
                yield {self.status: NO_CHANGE}

        given = {*given, self.current, self.result}
        # Before the run: the browser begins with the second event of a click when the first has ended.
        on(triggers, CurrentJob.ask, [self.current, source], None, **REPEATED)
        job = on(triggers, on_run, given, changed, self.queue, **REPEATED)
        emptied: Any = source
        endings = [self.actions.stop.click, emptied.clear]
        # Likewise: reading all widgets takes longer than to note a press, and a later one must not come before it.
        on(endings, CurrentJob.halt, self.current, None, **REPEATED)
        return job, on(endings, self.end, given, changed, **REPEATED)

    def reported(
        self, updates: Generator[Update], values: Values, source: object = "", files: Sequence[str] = ()
    ) -> Generator[Update]:
        """Pass on the updates of a job; where it fails, the reason stands in the status line and is raised as well.

        It takes the place of a job under way, and ends when another one or a pick of the visitor takes its own, at the
        next update, which may be empty. ``source`` is as in ``CurrentJob``; ``files`` are what else it reads at once.
        One of none goes on from the result on show.
        """
        result, current = values[self.result], values[self.current]
        identity = current.begin(source)
        files = [*self.read_at_once(source), *files]
        updates = self._admitted(files, updates, None if files or source else result)
        try:
            with translate_errors(), closing(updates):
                for update in updates:
                    if current.identity is not identity:
                        break
                    result = update.get(self.result, result)
                    if update:  # with the buttons each time: the answer to an earlier Stop may be drawn after the first
                        yield one_of_many({**self.actions.begun(), **update})
        except gr.Error as error:
            if current.identity is identity:
                current.identity = None
                yield one_of_many(self.rest(result, error.message, values))
                raise
        if current.identity is identity:
            current.identity = None
        elif result is not None and current.stopped is identity:
            yield self.settled(result)
        else:
            yield {self.status: NO_CHANGE}  # Gradio shows the last update of a job once more at its end

    def read_at_once(self, source: object) -> list[str]:
        """List the files of the input that a run reads at once."""
        return [source] if source and isinstance(source, str) else []

    def _admitted(self, files: list[str], updates: Generator[Update], result: str | None) -> Generator[Update]:
        """Let a job that holds much begin when there is room for it."""
        with closing(cast(Any, self.service.admit(files, updates, result))) as events:
            for event in events:
                yield {self.status: progress_line(event, stale=False)} if isinstance(event, Progress) else event

    def pick(self, make: Callable[[], Update], values: Values, *, is_stop: bool = False) -> Update:
        """Make what changes with a pick of the visitor, which ends a job; what is asked for meanwhile stays."""
        current: CurrentJob = values[self.current]
        identity, current.shown = current.begin(is_stop=is_stop), None
        try:
            update = make()
            return update if current.identity is identity else {self.status: NO_CHANGE}
        finally:
            if current.identity is identity:
                current.identity = None

    def end(self, values: Values) -> Update:
        """Make what a halted job had reached the result, or that of before it, unless something was asked for since.

        So do Stop, and whoever takes its photo out of the input.
        """
        current: CurrentJob = values[self.current]
        if not current.is_halted:
            return {self.status: NO_CHANGE}
        result = self.reached(values)
        return self.pick(lambda: self.stopped(result, values), values, is_stop=True)

    def reached(self, values: Values) -> str | None:
        """Return the id of what is on show when a job is ended."""
        return values[self.result]

    @abstractmethod
    def stopped(self, result: str | None, values: Values) -> Update:
        """Show what a stopped job had reached, if anything, and that it was stopped."""

    def settled(self, result: str) -> Update:
        """Change what a stopped job has still reached after ``stopped``: it goes on for a moment."""
        return {self.status: NO_CHANGE}

    @abstractmethod
    def rest(self, result: str | None, sentence: str, values: Values) -> Update:
        """Show a result as finished, if there is one, with a sentence about how its job ended."""

    def idle(self, sentence: str) -> Update:
        """Write how a job ended and make the buttons ready for the next."""
        return {self.status: status_line(sentence), **self.actions.ended()}


class ModelInputs(Generic[Model]):
    """The widgets of a settings model by field, which the screen that draws them fills in."""

    def __init__(self, model: type[Model]) -> None:
        self.model = model
        self.widgets: dict[str, Component] = {}

    def read(self, values: Values) -> Model:
        """Make the settings that the widgets hold. Raises: SettingsError."""
        return self.model(**{name: values[widget] for name, widget in self.widgets.items()})


class Screen:
    """One part of the page; it draws itself into the current layout when it is made."""

    def __init__(self, controller: "RunController", tab: gr.Tab | None = None) -> None:
        """Prepare; ``tab`` is the one that it is in, if any."""
        self.controller, self.tab = controller, tab

    def is_seen(self, values: Values) -> bool:
        """Return whether its tab is open; what is drawn in another one is drawn when that is opened."""
        return self.tab is None or values[self.controller.open_tab].name == self.tab.label

    @property
    def inputs(self) -> list[Component]:
        """List the widgets whose values ``show`` and ``finish`` want to know."""
        return []

    @property
    def outputs(self) -> list[Component]:
        """List what ``show`` and ``finish`` may change."""
        return []

    def clear_result(self, values: Values, photo: np.ndarray | None) -> Update:
        """Take away what belongs to the result on show; ``photo`` [H, W, 3] uint8 is what is now worked on, if any."""
        return {}

    def begin(self, values: Values) -> Update:
        """Change what does not hold while a job runs; ``show`` and ``finish`` change it back."""
        return {}

    def show(self, prediction: Prediction, values: Values) -> Update:
        """Change what is quick with a prediction that may still gain members."""
        return {}

    def finish(self, prediction: Prediction, values: Values) -> Update:
        """Change what waits for the last member."""
        return {}

    def listen(self) -> None:
        """Wire the screen's own events; called once the whole page is drawn."""

    def after(self, event: Dependency) -> None:
        """Chain slow work, such as a mesh, to an event that has brought a new result."""


@dataclass(frozen=True)
class Job:
    """What one job runs."""

    photo: Photo
    settings: Settings
    checkpoint: str
    start: Prediction | None = None  # whose members are kept and continued
    record: Manifest | None = None  # of the run that is made again, with its threads and hints
    threshold: float | None = None  # for early stopping, a share of the depth range; None runs every member
    hints: Hints | None = None  # that guide the denoising


class RunController(JobTab):
    """Runs the jobs of one open page, keeps the result on show, and hands new ones to every screen."""

    def __init__(self, service: Service) -> None:
        """Begin without a result; the page adds the screens, and it and they call the ``draw`` methods."""
        super().__init__(service)
        self.open_tab = gr.State(OpenTab())
        self.screens: list[Screen] = []
        self.jobs: list[Dependency] = []  # events that hold the model, which Stop ends
        self.colours = ModelInputs(ColourSettings)  # what is seen and what files are made with: the same
        self.mesh = ModelInputs(MeshSettings)

    def draw_photo(self) -> None:
        """Draw the photo input."""
        self.photo = draw_photo()

    def draw_buttons(self) -> None:
        """Draw Run and Stop."""
        self.actions = JobButtons(text.RUN)

    def draw_status(self) -> None:
        """Draw the line about what is on show or under way."""
        self.status = gr.HTML(status_line(text.READY), elem_id="status")

    def draw_early_stopping(self) -> None:
        """Draw the choice and the threshold of early stopping."""
        self.early_stopping = gr.Checkbox(False, label=text.STOPS, info=text.STOPS_INFO, container=False)
        self.threshold = gr.Slider(0.1, 2, value=THRESHOLD, step=0.05, label=text.BELOW)

    @property
    def inputs(self) -> list[Component]:
        """Gather the widgets whose values ``run_job`` and ``show_result`` need, beside those of the event itself.

        Given as a set, they make Gradio call the handler with one mapping from widget to value.
        """
        common = [self.open_tab, self.current, self.result]
        return [*common, *(widget for screen in self.screens for widget in screen.inputs)]

    @property
    def outputs(self) -> list[Component]:
        """List what ``run_job`` and ``show_result`` may change."""
        screens = [component for screen in self.screens for component in screen.outputs]
        return [self.status, *self.actions.outputs, self.result, self.photo, *dict.fromkeys(screens)]

    def shown(self, result: str | None) -> Prediction:
        """Return the result on show. Raises: ExportError when there is none, or it is no longer kept."""
        if result is None:
            raise ExportError(text.NO_RESULT)
        return self.service.prediction(result)

    def shown_of(self, photo: np.ndarray, values: Values) -> Prediction | None:
        """Return the result that was on show, if it is of this photo [H, W, 3] uint8."""
        result: str | None = values[self.result]
        shown = self.service.prediction(result) if result and self.service.keeps(result) else None
        return shown if shown is not None and np.array_equal(shown.photo, photo) else None

    def show_result(self, prediction: Prediction, sentence: str, values: Values) -> Update:
        """Put a finished prediction on show, with a sentence about it and its note; it is on the disk from then on."""
        if prediction.note and prediction.note not in sentence:
            sentence = followed(sentence, prediction.note)
        key = self.service.keep(prediction)
        try:
            self.service.persist(key)
        except ExportError as error:  # it is in memory still
            sentence = followed(sentence, text.NOT_PERSISTED.format(reason=error))
        update = self._shown_so_far(prediction, key, values)
        for screen in self.screens:
            update |= screen.finish(prediction, values)
        return update | self.idle(sentence)

    def _shown_so_far(self, prediction: Prediction, key: str, values: Values) -> Update:
        """Put a prediction on show that may still gain members; ``key`` is its id."""
        update: Update = {self.result: key}
        for screen in self.screens:
            update |= screen.show(prediction, values)
        return update

    def show_depth(self, prediction: Prediction, values: Values) -> Update:
        """Put a depth map from elsewhere on show, with what is known of it."""
        named = text.GIVEN_DONE.format(name=prediction.checkpoint, kind=text.GIVEN_KINDS[prediction.kind])
        return self.show_result(prediction, named, values)

    def fill_photo(self, file: str, values: Values) -> Update:
        """Put a photo into the input, which is not run by itself."""
        values[self.current].is_filled = True
        return {self.photo: file}

    def take(self, source: str | Photo, values: Values) -> Generator[Update, None, Photo]:
        """Begin a job with its photo, a file or decoded; what is on show of another one is taken away -> the photo.

        Raises: ImageError, after which neither the photo nor a result of another one is on show.
        """
        current: CurrentJob = values[self.current]
        again = {self.photo: source} if current.is_filled and isinstance(source, str) else {}
        current.is_filled, identity = False, current.identity
        yield {**self.begun(values), **again}
        try:
            photo = load_photo(source)
        except ImageError:
            yield {**self._cleared(values, None), self.photo: None}
            raise
        if self.shown_of(photo.pixels, values) is None:
            yield self._cleared(values, photo.pixels)
        if current.identity is identity:
            current.shown = source if isinstance(source, str) else None
        return photo

    def run_photo(self, photo: Photo, settings: Settings, checkpoint: str, values: Values) -> Generator[Update]:
        """Run the model on a photo, with early stopping where it is chosen."""
        threshold = values[self.threshold] / 100 if values[self.early_stopping] else None
        return self.run_job(Job(photo, settings, checkpoint, threshold=threshold), values)

    def add_members(self, number: int, values: Values) -> Generator[Update]:
        """Add members to the result on show; those that it has are not computed again."""
        start = self.shown(values[self.result])
        if not isinstance(start.settings, ResolvedSettings):
            raise ExportError(text.MORE_GIVEN)
        most = most_members(family_of_result(start.checkpoint), start.settings.views)
        members = min(start.settings.ensemble_size + number, most)
        settings = start.settings.changed(ensemble_size=members)
        yield from self.run_job(Job(photo_of(start), settings, offered_checkpoint(start.checkpoint), start), values)

    def complete(self, hints: Hints, values: Values) -> Generator[Update]:
        """Run the photo on show again, guided by known depths; what was on show is remembered as relative."""
        shown = self.shown(values[self.result])
        start = (shown.relative if isinstance(shown, Measured) else None) or shown
        if not isinstance(start.settings, ResolvedSettings):
            raise ExportError(text.COMPLETE_GIVEN)
        own = start.settings
        settings = Settings(seed=own.seed, processing_resolution=own.processing_resolution)
        checkpoint = offered_checkpoint(start.checkpoint)
        yield from self.run_job(Job(photo_of(start), settings, checkpoint, start, hints=hints), values)

    def run_job(self, job: Job, values: Values) -> Generator[Update]:
        """Run a job and show its first member and then a state now and then, empty in between; closing this stops it.

        Every member is kept under the one id of the job, so that what a stopped job had reached is the result.
        """
        yield self.begun(values)
        began, pace = perf_counter(), Pace()
        result, key, progress, is_new = None, None, None, False
        events, stopping = self._start(job)
        for event in events:
            is_first = False
            if isinstance(event, Progress):
                progress = event
            else:
                is_first, result, key = result is None, event, self.service.keep(event, key)
                is_new = event.fused < job.settings.ensemble_size  # the last one is shown at the end
            if not (pace.is_due or (is_first and is_new)):
                yield {}
                continue
            update, begun = Update(), perf_counter()
            if progress is not None:
                update[self.status] = progress_line(progress, stale=result is None)
            if result is not None and key is not None and is_new:
                update |= self._shown_so_far(result, key, values)
            yield update
            pace.wait(perf_counter() - begun)
            progress, is_new = None, False
        assert result is not None  # a run ends with its prediction or raises
        sentence = summary(result, perf_counter() - began)
        if stopping is not None and stopping.converged:
            sentence = text.SETTLED.format(used=stopping.finished, asked=stopping.requested, seconds=stopping.saved_s)
        yield self.show_result(result, sentence, values)

    def _start(self, job: Job) -> tuple[Iterator[Progress | Prediction], EarlyStopping | None]:
        """Make the events of a job -> them, and the early stopping that they pass through, if any."""
        one_by_one = {} if job.threshold is None else {"batch_size": 1}  # a member not needed is one not begun
        settings = job.settings.changed(**one_by_one)
        events = self.service.run(job.photo, settings, job.checkpoint, job.start, record=job.record, hints=job.hints)
        if job.threshold is None:
            return events, None
        stopping = EarlyStopping(events, job.settings.ensemble_size, job.threshold)
        return iter(stopping), stopping

    def reached(self, values: Values) -> str | None:
        """Return the id of the result on show, unless it is that of another photo than the one that is being read."""
        current: CurrentJob = values[self.current]
        return values[self.result] if current.source in ("", current.shown) else None

    def stopped(self, result: str | None, values: Values) -> Update:
        """Make the members that a stopped job had the result."""
        if result is None or not self.service.keeps(result):
            return self.rest(None, text.STOPPED, values)
        made = self.service.prediction(result).fused
        sentence = text.STOPPED_WITH.format(members=text.count(made, "member")) if made else text.STOPPED
        return self.rest(result, sentence, values)

    def begun(self, values: Values) -> Update:
        """Write that a job begins, and offer to stop it."""
        update: Update = {
            self.status: status_line(text.STARTING, 0, stale=True),
            **self.actions.begun(),
        }
        for screen in self.screens:
            update |= screen.begin(values)
        return update

    def _cleared(self, values: Values, photo: np.ndarray | None) -> Update:
        """Take the result off the page."""
        update: Update = {self.result: None}
        for screen in self.screens:
            update |= screen.clear_result(values, photo)
        return update

    def rest(self, result: str | None, sentence: str, values: Values) -> Update:
        """Show a result as finished, if there is one, with a sentence about how the job ended."""
        if result is None or not self.service.keeps(result):
            return {**self._cleared(values, None), **self.idle(sentence)}
        return self.show_result(self.service.prediction(result), sentence, values)

    def after(self, event: Dependency) -> None:
        """Let every screen do its slow work after an event that has brought a new result."""
        for screen in self.screens:
            screen.after(event)


def photo_of(prediction: Prediction) -> Photo:
    """Give the photo that a prediction was made of."""
    return Photo(prediction.photo, prediction.fov_x_deg, prediction.note, prediction.given_size)


def followed(sentence: str, remark: str) -> str:
    """Put a remark after a sentence, which may lack its full stop."""
    return f"{sentence}{'' if sentence.endswith('.') else '.'} {remark}"


def status_line(sentence: str, share: float | None = None, *, stale: bool = False) -> str:
    """Draw the status line: a sentence, and while something runs a bar (``share`` in [0, 1], below 0 unknown).

    ``stale`` dims the pictures: they are still those of an earlier photo.
    """
    return render("status_line", sentence=sentence, share=share, stale=stale)


def progress_line(event: Progress, *, stale: bool) -> str:
    """Draw the status line for a progress event."""
    return status_line(text.capital(event.stage), event.done / event.total if event.total else -1, stale=stale)


def summary(prediction: Prediction, seconds: float) -> str:
    """Describe what was made, from what, and how long it took."""
    height, width = prediction.photo.shape[:2]
    used = prediction.settings
    assert isinstance(used, ResolvedSettings)  # of a run
    return text.DONE.format(
        members=text.count(used.ensemble_size, "member"),
        steps=text.count(used.num_inference_steps, "step"),
        tiles=text.tiles(used.tiles_per_side),
        seconds=seconds,
        width=width,
        height=height,
        seed=used.seed,
        name=prediction.checkpoint,
    )


def button_note(sentence: str, remark: str = "") -> str:
    """Draw what stands beside a button of this screen."""
    return render("button_note", sentence=sentence, remark=remark)
