"""The folder of one run: what it was started with, its best bundle, and what may change when it is resumed.

::

    RUN/
        recipe.json              the recipe and the fingerprints of data, vocabulary and encoder
        splits.json              which image is in which split
        log.jsonl, plot.png
        checkpoint.safetensors   to go on from
        best.json                names the best bundle
        bundles/epoch-007/       that bundle
        .train.lock              one trainer at a time
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from showtell.bundle import Bundle, save_bundle
from showtell.data.records import Dataset
from showtell.data.splits import SPLITS_FILE, save_splits
from showtell.errors import ConfigError, TrainingError, UsageError
from showtell.files import expand_home, lock_folder, remove_partial_files, write_json
from showtell.recipes import SECTIONS, Recipe
from showtell.training.checkpoint import read_values
from showtell.training.history import LOG

LOCK = ".train.lock"  # not a feature cache's, which may be in the same folder
# Changing these does not change what the epochs so far were.
MAY_CHANGE = {"epochs", "patience", "checkpoint_seconds", "evaluate_every", "device"}
MAY_CHANGE_FINE_TUNING = {"recompute"}


def find_training_weights(bundle: Path, recipe: Recipe) -> list[Path]:
    """Returns folders where the encoder's weights files of a bundle were in training, as far as that is known.

    Args:
        bundle: its folder; where it is still inside of its run, the run knows.
        recipe: of the bundle; the first bundles kept the whole path of the file.
    """
    encoders = [recipe.encoder]
    with contextlib.suppress(
        OSError, ValueError, KeyError, TypeError, ConfigError
    ):  # a hint; other folders are searched, too
        record = json.loads((bundle.parent.parent / "recipe.json").read_text(encoding="utf-8"))
        encoders.insert(0, replace(recipe.encoder, weights=str(record["recipe"]["encoder"]["weights"])))
    named = [one.weights for encoder in encoders for one in encoder.backbones()]
    return [expand_home(path).parent for path in named if Path(path).name != path]


class RunFolder:
    """One run on disk.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.safetensors"
        self._record = path / "recipe.json"
        self._held = contextlib.ExitStack()

    def open(
        self,
        recipe: Recipe,
        dataset: Dataset,
        fingerprints: Mapping[str, str],
        *,
        resume: bool,
        split_seed: int | None = None,
    ) -> bool:
        """Starts the folder, or checks that it is the run that is to be resumed.

        Returns:
            Whether there is a checkpoint to go on from.

        Raises:
            UsageError: the folder holds a run and `resume` was not asked for, or holds something else. A run that
                failed before its first checkpoint may be started again without `resume`.
            TrainingError: the run was started with another recipe, other data or another encoder, or another process
                is training in the folder.
        """
        record: dict[str, Any] = {"recipe": recipe.to_dict(), "fingerprints": dict(fingerprints)}
        occupied = self.path.exists() and any(entry.name != LOCK for entry in self.path.iterdir())
        if occupied and not self._record.is_file():
            raise UsageError(f"{self.path}: not empty and not a run. Choose another --output.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(
            lock_folder(self.path, TrainingError, "another process is training in this folder", name=LOCK)
        )
        if self._record.is_file():
            if resume:
                # What is not said again, as what the run started from, stays as it was.
                before = self._compare(record)
                record["fingerprints"] = {**before, **fingerprints}
                if "start" in before and "start" not in fingerprints and not self.checkpoint.exists():
                    raise TrainingError(
                        f"{self.path}: this run was to begin with the weights of another captioner and "
                        "ended before its first checkpoint. Give --from MODEL again, the same as then."
                    )
            elif not self._has_only_begun(record):
                raise UsageError(
                    f"{self.path}: holds a run already. Add --resume to go on with it, or choose another --output."
                )
            remove_partial_files(self.path)
        write_json(self._record, record)
        save_splits(dataset, self.path / SPLITS_FILE, seed=split_seed)
        return resume and self.checkpoint.is_file()

    def close(self) -> None:
        """Lets other processes open the folder."""
        self._held.close()

    def save_best(self, bundle: Bundle, epoch: int) -> Path:
        """Writes a bundle, makes it the best one, and removes the one before.

        A kill at any moment leaves a best.json that names a whole bundle.
        """
        bundles = self.path / "bundles"
        folder = bundles / f"epoch-{epoch:03d}"
        attempt = 1
        while folder.exists():  # from a run that was killed before its checkpoint
            attempt += 1
            folder = bundles / f"epoch-{epoch:03d}-{attempt}"
        try:
            save_bundle(bundle, folder)
            write_json(self.path / "best.json", {"bundle": f"bundles/{folder.name}", "epoch": epoch})
        except Exception:  # not KeyboardInterrupt, which may come when best.json names this folder already
            shutil.rmtree(folder, ignore_errors=True)
            raise
        for other in bundles.iterdir():
            if other != folder and other.is_dir():
                shutil.rmtree(other)
        return folder

    def _has_only_begun(self, record: Mapping[str, Any]) -> bool:
        """Returns whether there is nothing to lose: this very run before its first checkpoint, or another before its
        first step, of which there are only the files that are written here and an empty log.
        """
        if self.checkpoint.exists():
            return False
        others = {entry.name for entry in self.path.iterdir()} - {LOCK, self._record.name, SPLITS_FILE}
        log = self.path / LOG
        if others <= {LOG} and not (log.exists() and log.stat().st_size):
            return True
        try:
            self._compare(record)
        except TrainingError:
            return False
        return True

    def _compare_plans(
        self,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        position: Mapping[str, Any],
        *,
        reinforced: bool,
    ) -> list[str]:
        """Returns what would put the self-critical epochs somewhere else than they are or can be."""
        if not reinforced and not new["self_critical"]["epochs"]:
            return []
        changed = []
        steps = [recipe["decoding"]["max_steps"] for recipe in (old, new)]
        if reinforced and steps[0] != steps[1]:  # the longest sample
            changed.append(f"decoding.max_steps ({steps[0]!r}, now {steps[1]!r})")
        key = "self_critical.epochs" if reinforced else "training.epochs"
        before = old["training"]["epochs"] if reinforced else 0
        begun = position.get("epoch", 0) + (1 if position.get("batch", 0) else 0) - before
        planned = new["self_critical" if reinforced else "training"]["epochs"]
        if planned < begun:
            changed.append(f"{key} ({planned}, but {begun} have begun)")
        return changed

    def _compare(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Returns the fingerprints that the run was started with; raises TrainingError where others are given now."""
        try:
            before = json.loads(self._record.read_text(encoding="utf-8"))
            # Through Recipe, so that a key which is younger than the run has its default.
            old = Recipe.from_dict(before["recipe"]).to_dict()
            new = json.loads(json.dumps(record["recipe"]))
            position = read_values(self.checkpoint) if self.checkpoint.exists() else {}
            # Self-critical epochs may be added to a run, or changed, until the first of their steps was made.
            reinforced = bool(position.get("reinforced", 0))
            may_change = MAY_CHANGE - {"epochs"} if reinforced else MAY_CHANGE
            changed = [
                f"{section}.{key} ({old[section].get(key)!r}, now {new[section].get(key)!r})"
                for section in SECTIONS
                for key in {**old[section], **new[section]}
                if section != "decoding"  # is no part of what is trained
                and old[section].get(key) != new[section].get(key)
                and not (section == "training" and key in may_change)
                and not (section == "fine_tuning" and key in MAY_CHANGE_FINE_TUNING)
                and not (section == "self_critical" and (key == "epochs" or not reinforced))
                and not (
                    section == "encoder" and key == "weights"
                )  # a moved file; its digest is compared below
            ]
            changed += self._compare_plans(old, new, position, reinforced=reinforced)
            changed += [
                f"the {name} (fingerprint {before['fingerprints'].get(name, '')[:12]}, now {value[:12]})"
                for name, value in record["fingerprints"].items()
                if before["fingerprints"].get(name) != value
            ]
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise TrainingError(f"{self._record}: damaged, so the run cannot be resumed: {error!r}") from None
        if changed:
            given = "start" in record["fingerprints"] or "start" not in before["fingerprints"]
            again = (
                ""
                if given
                else " It began with another captioner. Give --from MODEL again, the same as then."
            )
            raise TrainingError(
                f"{self.path}: the run was started with other settings and cannot be resumed with these. "
                f"Different: {'; '.join(changed)}.{again} Give the old ones, or start a new run in another folder."
            )
        return dict(before["fingerprints"])
