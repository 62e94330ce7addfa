"""The threshold search as an Optuna sampler, on real studies."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from orchestrator.optuna_sampler import ThresholdSampler
from orchestrator.optuna_space import Place, StudySpace
from orchestrator.search.threshold import CurveSpace, Policy, Rules
from tests import surface_study
from tests.surface_study import HIGH, LOW, THRESHOLDS, journal, objective, sampler, study_of

optuna.logging.set_verbosity(optuna.logging.ERROR)
SIZES = IntDistribution(LOW, HIGH, log=True)
SPACE = StudySpace("data_size", SIZES, {"k": [*THRESHOLDS]}, ())


def places(study: optuna.Study) -> list[Place | None]:
    return [SPACE.place(trial.params) for trial in study.trials]


def finished(**settings: Any) -> optuna.Study:
    study = study_of(**settings)
    study.optimize(objective)
    return study


def thresholds(study: optuna.Study) -> pl.DataFrame:
    assert isinstance(study.sampler, ThresholdSampler)
    return study.sampler.thresholds(study)


def test_it_ends_with_the_thresholds_of_the_surface() -> None:
    """`optimize` stops by itself; the table has a row per curve, its interval as narrow as asked and around the
    truth."""
    study = finished()
    table = thresholds(study)
    assert ["k", "threshold", "low", "high", "trials", "ended"] == table.columns
    assert [1, 2] == table["k"].to_list()
    assert ["precise", "precise"] == table["ended"].to_list()
    assert len(study.trials) == table["trials"].sum()
    for k, threshold, low, high, *_ in table.iter_rows():
        assert low < THRESHOLDS[k] < high
        assert low < threshold < high
        assert math.log2(high / low) <= 1


def test_asking_one_by_one_is_asking_for_a_batch() -> None:
    """Trials asked for and not told are pending: together they are the batch that the policy asks for."""
    study = study_of()
    for trial in [study.ask() for _ in range(7)]:
        study.tell(trial, objective(trial))
    spaces = [CurveSpace(SPACE.positions, place=SPACE.coordinates(i)) for i in range(2)]
    assert [Place(*pair) for pair in Policy(spaces, Rules(precision=1)).ask([[], []], [[], []], 7)] == places(
        study
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_processes_that_decide_at_the_same_time_decide_differently(order: tuple[int, ...]) -> None:
    """Three trials are begun before any has been placed; in whichever order that happens, they are a batch."""
    study = study_of()
    ids = [study._storage.create_new_trial(study._study_id) for _ in range(3)]
    for i in order:
        objective(optuna.Trial(study, ids[i]))
    batch = study_of()
    for trial in [batch.ask() for _ in range(3)]:
        objective(trial)
    assert places(batch) == places(study)


def test_a_restart_equals_a_run_without_one(tmp_path: Path) -> None:
    """The study lies in a file; with a new sampler every few trials, it is the study of one that never stopped."""
    while not sampler().is_finished(study := study_of(journal(tmp_path / "j"))):
        study.optimize(objective, n_trials=5)
    whole = finished()
    assert [trial.params for trial in whole.trials] == [trial.params for trial in study.trials]
    assert thresholds(whole).equals(thresholds(study))


def test_several_processes_share_a_study(tmp_path: Path) -> None:
    """Both do some of it, and end when it is done; no seed is used twice, and at most one trial is too many."""
    program = [sys.executable, surface_study.__file__, tmp_path / "j"]
    both = [subprocess.Popen(program, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=240)[1] for process in both]
    assert [0, 0] == [process.returncode for process in both], said
    assert all("Trial " in text for text in said)
    study = study_of(journal(tmp_path / "j"), precision=0.5)
    table, seeds = thresholds(study), [trial.params["seed"] for trial in study.trials]
    assert None not in table["ended"].to_list()
    assert len(set(seeds)) == len(seeds)
    assert all(THRESHOLDS[k] / 2 < threshold < THRESHOLDS[k] * 2 for k, threshold, *_ in table.iter_rows())
    assert len(study.trials) <= 2 * 60 + 1


def test_threads_share_a_study() -> None:
    """n_jobs: the same. What still ran at the end may have told otherwise; then it goes on."""
    study = study_of()
    while not sampler().is_finished(study):
        study.optimize(objective, n_jobs=3)
    assert len(study.trials) == len({trial.params["seed"] for trial in study.trials})


def test_a_database_will_do(tmp_path: Path) -> None:
    """SQLite gives the study that memory gives."""
    study = study_of(f"sqlite:///{tmp_path / 'study.db'}", trials=12)
    study.optimize(objective)
    assert [t.params for t in finished(trials=12).trials] == [t.params for t in study.trials]


def test_running_trials_are_pending_and_failed_ones_are_not() -> None:
    """The next trial stands elsewhere while one runs, and where it stood if it fails; with another seed."""
    study = study_of()
    first = study.ask()
    objective(first)
    objective(study.ask())
    study.tell(first, state=TrialState.FAIL)
    objective(study.ask())
    one, other, again = places(study)
    assert one == again != other
    assert [0, 1, 2] == [trial.params["seed"] for trial in study.trials]


def test_pruned_trials_say_nothing() -> None:
    """Though they have values."""
    study = study_of()
    trial = study.ask()
    objective(trial)
    trial.report(1.0, step=1)
    study.tell(trial, state=TrialState.PRUNED)
    assert [0, 0] == thresholds(study)["trials"].to_list()


def test_an_objective_that_always_fails_comes_to_an_end() -> None:
    """After max_trials per curve."""
    study = study_of(max_trials=5)
    study.optimize(lambda trial: objective(trial) / 0, catch=ZeroDivisionError)
    assert ["failed", "failed"] == thresholds(study)["ended"].to_list()
    assert 10 == len(study.trials)


def test_trials_of_other_samplers_count() -> None:
    """A study that a random sampler began goes on from there; what lies beside the curves is left out."""
    along, choices = FloatDistribution(1, HIGH, log=True), CategoricalDistribution([1, 2, 3])
    study = study_of()
    for k, size in [(1, 100), (1, 4000), (2, 3000), (3, 100), (2, 8)]:
        value = surface_study.accuracy(k=k, data_size=size, seed=0)
        params, kinds = {"k": k, "data_size": size}, {"k": choices, "data_size": along}
        study.add_trial(create_trial(params=params, distributions=kinds, value=value))
    assert [2, 1] == thresholds(study)["trials"].to_list()


def test_enqueued_trials_are_taken_as_they_are() -> None:
    """They are pending while they wait. One that lacks a parameter is a mistake, and fails."""
    study = study_of()
    given_ = {"k": 2, "data_size": 77, "seed": 5}
    study.enqueue_trial(given_)
    first = study.ask()
    objective(first)
    assert given_ == first.params
    study.enqueue_trial({"k": 1})
    missing = r"an enqueued trial needs all parameters \(k, data_size, seed\); data_size is missing"
    with pytest.raises(ValueError, match=missing):
        objective(study.ask())


def test_more_trials_than_needed() -> None:
    """Beyond the end, a trial is still given a place; `is_finished` says before that it is not needed."""
    study = finished()
    assert isinstance(study.sampler, ThresholdSampler)
    assert study.sampler.is_finished(study)
    trial = study.ask()
    study.tell(trial, objective(trial))
    assert places(study)[-1] is not None


def test_more_workers_than_trials_are_wanted() -> None:
    """With a narrow curve and many pending trials, all are placed, within the interval."""
    study = study_of(max_trials=6)
    for trial in [study.ask() for _ in range(40)]:
        study.tell(trial, objective(trial))
    assert Counter({1: 20, 2: 20}) == Counter(trial.params["k"] for trial in study.trials)


def test_a_budget_for_all_curves() -> None:
    """`trials` ends the study."""
    study = finished(trials=15)
    assert 15 == len(study.trials)
    assert "trials" in thresholds(study)["ended"].to_list()


def test_a_sampler_can_be_pickled() -> None:
    """As Optuna's users do to go on later; it says the same."""
    study = finished()
    assert isinstance(study.sampler, ThresholdSampler)
    again = pickle.loads(pickle.dumps(study.sampler))
    assert again.thresholds(study).equals(study.sampler.thresholds(study))


def test_scores_and_falling_curves() -> None:
    """A linear parameter along which solving becomes rarer, found out by itself; solved is a score of 0.9."""
    search = ThresholdSampler("p", FloatDistribution(0, 12), precision=1, solved_at_least=0.9)
    study = optuna.create_study(direction="maximize", sampler=search)
    study.optimize(lambda trial: 0.95 if trial.suggest_float("p", 0, 12) < 7.3 else 0.85)
    ((_, low, high, _, ended),) = search.thresholds(study).iter_rows()
    assert "precise" == ended
    assert low < 7.3 < high
    assert high - low <= 1


def test_a_list_of_curves() -> None:
    """Combinations that are no product; a parameter with one value."""
    curves = [{"k": 1, "depth": 1}, {"depth": 2, "k": 1}, {"k": 2, "depth": 2}]
    search = ThresholdSampler("data_size", SIZES, curves, precision=2)
    study = optuna.create_study(sampler=search)

    def run(trial: optuna.Trial) -> float:
        depth, k = trial.suggest_int("depth", 1, 2), trial.suggest_int("k", 1, 2)
        return float(trial.suggest_int("data_size", LOW, HIGH, log=True) > 300 * k / depth)

    study.optimize(run)
    assert [(1, 1), (1, 2), (2, 2)] == search.thresholds(study).select("k", "depth").rows()
    assert {(1, 1), (1, 2), (2, 2)} == {(t.params["k"], t.params["depth"]) for t in study.trials}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    (
        {"distribution": CategoricalDistribution([1, 2])},
        "data_size needs an IntDistribution or a FloatDistribution",
    ),
    ({"distribution": IntDistribution(4, 4)}, "data_size: a threshold is sought between at least two values"),
    ({"curves": {"k": "ab"}}, "curves: k needs a list of values, not 'ab'"),
    ({"curves": {"k": []}}, r"curves: k needs a list of values, not \[\]"),
    ({"curves": []}, "curves: none is named"),
    ({"curves": [{"k": 1}, {"n": 1}]}, r"curves: all name the same parameters; \['k'\] and \['n'\] differ"),
    ({"curves": {"k": [1, 1]}}, "curves: the same combination stands there twice"),
    ({"curves": {"k": [(1, 2)]}}, r"curves: k = \(1, 2\) is neither a number, text, true, false nor None"),
    (
        {"curves": {"data_size": [1]}},
        "'data_size' is the parameter to search along; it can't name a curve too",
    ),
    (
        {"curves": {"trials": [1]}},
        "a parameter can't be called 'trials': the table of thresholds has such a column",
    ),
    (
        {"curves": {"seed": [1]}, "seed_parameter": "seed"},
        "'seed' is the seed_parameter; it can't be another one too",
    ),
    ({"precision": 0}, "precision: 0 is not above 0"),
    ({"max_trials": 0}, "max_trials: 0 is not above 0"),
    ({"trials": -1}, "trials: -1 is not above 0"),
    ({"direction": "up"}, "direction: 'up' is none of auto, increasing, decreasing"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_mistakes_in_the_settings(settings: dict[str, Any], message: str) -> None:
    """Each is said at once."""
    with pytest.raises(ValueError, match=f"^{message}"):
        ThresholdSampler(**{"along": "data_size", "distribution": SIZES, **settings})


def test_mistakes_in_the_objective() -> None:
    """What the sampler does not know, or the objective does not allow, is said where it is suggested."""
    trial = study_of().ask()
    with pytest.raises(
        ValueError, match=r"^'data_sise' is no parameter .*\(k, data_size, seed\); did you mean 'data_size'"
    ):
        trial.suggest_int("data_sise", 1, 10)
    with pytest.raises(ValueError, match=r"^'lr' is no parameter .*\. Fix it, or let it name curves$"):
        trial.suggest_float("lr", 0, 1)
    for suggest in (
        lambda: trial.suggest_categorical("k", ["a", "b"]),
        lambda: trial.suggest_int("k", 7, 9),
    ):
        with pytest.raises(
            ValueError, match=r"^k = [12] is to be tried, and the objective suggests .*: let sampler and"
        ):
            suggest()


def test_mistakes_in_the_study() -> None:
    """Several objectives, or a target for large values in a study that minimizes."""
    with pytest.raises(ValueError, match="multi-objective optimization, ThresholdSampler cannot be used"):
        optuna.create_study(directions=["maximize", "maximize"], sampler=sampler()).ask()
    with pytest.raises(ValueError, match='this study minimizes: create it with direction="maximize"'):
        optuna.create_study(sampler=sampler(solved_at_least=0.9)).ask()


@st.composite
def ranges(draw: st.DrawFn) -> IntDistribution | FloatDistribution:
    low, steps = draw(st.integers(1, 10_000)), draw(st.integers(1, 10_000))
    log, step = draw(st.booleans()), draw(st.integers(1, 8))
    high = low + steps * step
    if draw(st.booleans()):
        return IntDistribution(low, high, log=log, step=1 if log else step)
    return FloatDistribution(low / 8, high / 8, log=log, step=None if log or step > 5 else step / 8)


@settings(deadline=None)
@given(ranges())
def test_candidates_are_values_of_the_distribution(distribution: IntDistribution | FloatDistribution) -> None:
    """Increasing, from end to end, each one that Optuna takes."""
    values = StudySpace("x", distribution, {}, ()).values
    assert (distribution.low, distribution.high) == (values[0], values[-1])
    assert list(values) == sorted(set(values))
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(LOW, HIGH), st.booleans()), max_size=12), st.randoms())
def test_the_order_of_trials_changes_nothing(trials: list[tuple[bool, int, bool]], random: Any) -> None:
    """Thresholds are those of the set of trials."""
    kinds = {"k": CategoricalDistribution([1, 2]), "data_size": SIZES}
    made = [
        create_trial(params={"k": 1 + k, "data_size": size}, distributions=kinds, value=float(solved))
        for k, size, solved in trials
    ]
    tables = []
    for _ in range(2):
        study = study_of()
        study.add_trials(made)
        tables.append(thresholds(study))
        random.shuffle(made)
    assert tables[0].equals(tables[1])


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    """It runs as it stands there, and finds what it is made of."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    blocks = [text.split("```")[0] for text in readme.split("```python\n")[1:]]
    (example,) = [code for code in blocks if "ThresholdSampler" in code]
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert 0 == done.returncode, done.stderr
    assert (tmp_path / "study.db").exists()
    assert 3 == done.stdout.count("precise")


def test_seed_labels() -> None:
    """Without a seed parameter each trial counts as a seed of its own; with one, what was suggested counts."""
    study, search = study_of(), sampler(seed_parameter=None)
    trial = study.ask()
    study.tell(trial, objective(trial))
    labels = [
        [told.seed for curve in s._known(study).told for told in curve] for s in (study.sampler, search)
    ]
    assert [[0], [-1]] == labels
