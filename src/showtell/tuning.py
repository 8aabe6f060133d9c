"""Choosing how a captioner searches: beam, length penalty and what may not be repeated, on dev and nothing else.

Images are encoded once; a trial only searches and scores. Optuna proposes the trials with a tree-structured Parzen
estimator (Bergstra et al. 2011) and keeps them in a journal of JSON lines, so a study that was killed goes on where it
stopped. The random numbers of a trial depend on the seed and the number of trials before it, so it goes on as if it
had never stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from showtell.captioner import Captioner
from showtell.captioning import caption_feature_batches, count_images
from showtell.data.records import Dataset
from showtell.decoding import DecodingSettings
from showtell.errors import UsageError, did_you_mean, require_packages
from showtell.files import lock_folder
from showtell.metrics import ReferenceIndex

if TYPE_CHECKING:
    from optuna import Study, Trial

JOURNAL = "trials.jsonl"
METRICS = ("CIDEr", "Bleu_4", "Bleu_3", "Bleu_2", "Bleu_1", "ROUGE_L")
TRIALS = 40
MAX_BEAM = 5
NGRAMS = (0, 2, 3)  # no_repeat_ngram; 1 would forbid a second "a"
MAX_PENALTY, PENALTY_STEP = 1.5, 0.1
_RANDOM = 10  # trials at random, before the estimator has something to go by

Progress = Callable[[int, int], object]  # called with (done, total)


@dataclass(frozen=True)
class EncodedSplit:
    """The dev images as an encoder sees them, and their references."""

    dataset: Dataset  # dev alone
    features: Sequence[Any]  # batches, as `Captioner.encode` gives them
    index: ReferenceIndex


@dataclass(frozen=True)
class Tried:
    """One way to search, and what its captions scored."""

    settings: DecodingSettings
    scores: Mapping[str, float]
    seconds: float  # searching all images


@dataclass(frozen=True)
class TuningResult:
    """What a study found."""

    metric: str
    before: Tried  # with the settings that the captioner had
    tried: tuple[Tried, ...]  # every different way once, the best first
    record: Mapping[str, Any] = field(default_factory=dict)  # what was tuned on what
    count: int = 1  # captions per image that the captioner gives; one of them is scored

    @property
    def best(self) -> Tried:
        """The best of all, which is what the captioner had where nothing is better."""
        found = self.tried[0] if self.tried else self.before
        return found if found.scores[self.metric] > self.before.scores[self.metric] else self.before

    @property
    def chosen(self) -> DecodingSettings:
        """The settings that a bundle is to have: the best ones, with as many captions as before."""
        settings = self.best.settings
        most = settings.beam if settings.method == "beam" else self.count
        return replace(settings, count=min(self.count, most))

    def to_dict(self) -> dict[str, Any]:
        """Returns the whole table as JSON-serialisable values."""
        return {
            **self.describe_choice(),
            "settings": self.chosen.to_dict(),
            "tried": [asdict(one) for one in self.tried],
        }

    def describe_choice(self) -> dict[str, Any]:
        """Returns what a bundle remembers of how its settings were chosen."""
        return {**self.record, "before": asdict(self.before), "scores": dict(self.best.scores)}


def check_split(split: str) -> None:
    """Raises UsageError unless the split is dev."""
    if split != "dev":
        reason = (
            "settings that were chosen on test would make its scores too good to be compared with anybody's"
            if split == "test"
            else "a model knows its training images too well to say how others are best captioned"
        )
        raise UsageError(
            f"Tuning on the split {split!r} is refused: {reason}. Tune on dev, then evaluate on test."
        )


def encode_split(
    captioner: Captioner,
    dataset: Dataset,
    *,
    max_images: int | None = None,
    progress: Progress | None = None,
) -> EncodedSplit:
    """Encodes the dev images once for all trials; their features stay in memory.

    Args:
        captioner: that is to be tuned.
        dataset: with a dev split.
        max_images: only the first so many.
        progress: called with (images done, images in all).

    Raises:
        SplitError: there is no dev split.
        ImageError: an image cannot be read.
        MetricError: an image has no references.
    """
    chosen = dataset.split("dev")
    chosen = replace(chosen, images=chosen.images[:max_images])
    index = ReferenceIndex({image.id: image.captions for image in chosen.images})
    batches = []
    done = 0
    for batch in captioner.encode(image.path for image in chosen.images):
        batches.append(batch)
        done += count_images(batch)
        if progress is not None:
            progress(done, len(chosen.images))
    return EncodedSplit(chosen, batches, index)


def tune(
    captioner: Captioner,
    encoded: EncodedSplit,
    *,
    folder: Path | None = None,
    resume: bool = False,
    trials: int = TRIALS,
    metric: str = "CIDEr",
    max_beam: int = MAX_BEAM,
    seed: int = 0,
    progress: Progress | None = None,
) -> TuningResult:
    """Searches for the settings whose captions of dev score best.

    Args:
        captioner: a captioner, or an ensemble.
        encoded: what `encode_split` gave for it.
        folder: keeps the study, so that it can be resumed; None keeps it in memory alone.
        resume: whether to go on with the study in the folder.
        trials: how many, those of earlier runs of the study included.
        metric: that is to be highest; one of METRICS.
        max_beam: the widest beam to try.
        seed: equal seeds give equal trials.
        progress: called with (trials done, trials in all).

    Raises:
        UsageError: an unknown metric; the folder holds a study and `resume` was not asked for; or its study is of
            another model, other data or other options, is damaged, or another process is working on it.
        ConfigError: a beam that is too wide.
        MissingExtraError: Optuna is not installed.
    """
    if metric not in METRICS:
        raise UsageError(
            f"Unknown metric {metric!r}.{did_you_mean(metric, METRICS)} Choose from: {', '.join(METRICS)}."
        )
    require_packages("tune", "Tuning", "optuna")
    plain = replace(captioner.settings, method="beam", beam=max_beam, count=1)
    identity = {
        "model": captioner.digest,
        "data": encoded.dataset.fingerprint(),
        "metric": metric,
        "max_beam": max_beam,
        "seed": seed,
    }
    with _open_study(folder, identity, resume=resume) as study:
        kept = study.user_attrs.get("before")
        if kept is None:
            kept = _try(captioner, encoded, replace(captioner.settings, count=1))
            study.set_user_attr("before", kept)
        while (done := len(_completed(study))) < trials:
            if progress is not None:
                progress(done, trials)
            _run_trial(study, captioner, encoded, plain, metric, seed=seed + 7919 * done)
        if progress is not None:
            progress(trials, trials)
        tried = {
            _read_settings(plain, trial.params): Tried(
                _read_settings(plain, trial.params), trial.user_attrs["scores"], trial.user_attrs["seconds"]
            )
            for trial in _completed(study)
        }
        record = {
            "metric": metric,
            "split": "dev",
            "dataset": encoded.dataset.name,
            "split_fingerprint": identity["data"],
            "images": len(encoded.dataset.images),
            "trials": len(_completed(study)),
            "max_beam": max_beam,
            "seed": seed,
        }
    # Of equal scores the narrower beam, which is quicker.
    ranked = sorted(tried.values(), key=lambda one: (-one.scores[metric], one.settings.beam))
    return TuningResult(
        metric,
        Tried(DecodingSettings.from_dict(kept["settings"]), kept["scores"], kept["seconds"]),
        tuple(ranked),
        record,
        captioner.settings.count,
    )


def _try(captioner: Captioner, encoded: EncodedSplit, settings: DecodingSettings) -> dict[str, Any]:
    """Captions and scores all images with some settings."""
    started = time.monotonic()
    captions = caption_feature_batches(captioner.backend, encoded.features, settings)
    texts = [found[0].text for found in captions]
    seconds = time.monotonic() - started
    scores = encoded.index.score(encoded.index.ids, texts).corpus
    return {"settings": settings.to_dict(), "scores": scores, "seconds": seconds}


def _run_trial(
    study: Study,
    captioner: Captioner,
    encoded: EncodedSplit,
    plain: DecodingSettings,
    metric: str,
    *,
    seed: int,
) -> None:
    from optuna.samplers import TPESampler

    # A sampler of its own for every trial: its random numbers need not be kept for a study that is resumed.
    study.sampler = TPESampler(seed=seed, n_startup_trials=_RANDOM)
    trial = study.ask()
    settings = _read_settings(plain, _suggest(trial, plain.beam))
    before = {_read_settings(plain, one.params): one for one in _completed(study)}
    if settings in before:  # a search without chance need not be repeated
        attributes = before[settings].user_attrs
    else:
        attributes = _try(captioner, encoded, settings)
    for name in ("scores", "seconds"):
        trial.set_user_attr(name, attributes[name])
    study.tell(trial, attributes["scores"][metric])


def _suggest(trial: Trial, max_beam: int) -> dict[str, Any]:
    return {
        "beam": trial.suggest_int("beam", 1, max_beam),
        "length_penalty": trial.suggest_float("length_penalty", 0.0, MAX_PENALTY, step=PENALTY_STEP),
        "no_repeat_ngram": trial.suggest_categorical("no_repeat_ngram", NGRAMS),
        "no_double_words": trial.suggest_categorical("no_double_words", (False, True)),
    }


def _read_settings(plain: DecodingSettings, parameters: Mapping[str, Any]) -> DecodingSettings:
    # Steps of a tenth add up to 0.30000000000000004.
    return replace(plain, **{**parameters, "length_penalty": round(parameters["length_penalty"], 6)})


def _completed(study: Study) -> list[Any]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


@contextlib.contextmanager
def _open_study(folder: Path | None, identity: Mapping[str, Any], *, resume: bool) -> Iterator[Study]:
    """Opens the study of a folder, or one in memory."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if folder is None:
        yield optuna.create_study(direction="maximize")
        return
    journal = folder / JOURNAL
    if journal.exists() and not resume:
        raise UsageError(
            f"{folder}: holds a study already. Add --resume to go on with it, or choose another --output."
        )
    if not journal.exists() and folder.exists() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise UsageError(f"{folder}: not empty and not a study. Choose another --output.")
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, UsageError, "another process is tuning in this folder"):
        _mend(journal)
        try:
            storage = JournalStorage(JournalFileBackend(str(journal)))
            study = optuna.create_study(
                storage=storage, study_name="showtell", direction="maximize", load_if_exists=True
            )
            before = study.user_attrs.get("identity")
            unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        except OSError:
            raise
        except Exception as error:  # what a damaged journal raises is up to Optuna
            raise UsageError(
                f"{journal}: damaged, so the study cannot be resumed ({error!r}). Choose another --output."
            ) from None
        if before is None:
            study.set_user_attr("identity", dict(identity))
        elif before != identity:
            changed = [
                f"{name} ({str(before.get(name))[:12]}, now {str(value)[:12]})"
                for name, value in identity.items()
                if before.get(name) != value
            ]
            raise UsageError(
                f"{folder}: the study was begun with another {' and another '.join(changed)}. "
                "Give what it was begun with, or choose another --output."
            )
        for trial in unfinished:  # of a run that was killed
            study.tell(trial.number, state=TrialState.FAIL)
        yield study


def _mend(journal: Path) -> None:
    """Takes away what a run that was killed left in the middle of writing."""
    # Optuna's own lock, a link beside the journal; the folder's lock says that nobody holds it.
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    if journal.exists():
        content = journal.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with journal.open("r+b") as file:
                file.truncate(len(whole))
