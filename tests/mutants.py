"""Break the source in one line at a time, and see whether the quick tests notice.

    python tests/mutants.py              # every mutant, a table, and the share that is caught
    python tests/mutants.py returns kl   # those whose name or file holds one of these words

Each mutant is made in a copy of the repository, where the tests beside it are run.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# A broken program may wait for ever, which is noticed too.
SECONDS = 300
MATHEMATICS = "tests/mathematics"
LOSSES = f"{MATHEMATICS}/test_losses.py"
ACTOR = f"{MATHEMATICS}/test_actor_critic.py"
STEP = f"{MATHEMATICS}/test_learning_step.py"
ESTIMATOR = f"{MATHEMATICS}/test_estimator.py"
DISTRIBUTIONS = f"{MATHEMATICS}/test_distributions.py"
NETWORK = f"{MATHEMATICS}/test_network.py"
ROLLOUT = "tests/sampling/test_rollout.py"
STREAMS = "tests/sampling/test_streams.py"
BAD = "tests/sampling/test_bad_environments.py"
RUNS = "tests/program/test_runs.py"
RELIABILITY = "tests/program/test_reliability.py"
RECORDS = "tests/program/test_records.py"
WORKERS = "tests/sampling/test_workers.py"
FAULTS = "tests/sampling/test_faults.py"
OBSERVATIONS = "tests/sampling/test_observations.py"
RANDOMNESS = f"{MATHEMATICS}/test_randomness.py"
EVALUATION = "tests/experiments/test_evaluation.py"
CALLBACKS = "tests/program/test_callbacks.py"
SWEEP = "tests/experiments/test_sweep.py"
COMPARISON = "tests/experiments/test_comparison.py"
TUNING = "tests/experiments/test_tuning.py"
OPTIONS = "tests/sampling/test_environment_options.py"
DIAGNOSTICS = f"{MATHEMATICS}/test_diagnostics.py"
EXPORTING = "tests/artifacts/test_exporting.py"
FILMING = "tests/artifacts/test_filming.py"
PAGES = "tests/artifacts/test_pages.py"


class Mutant(NamedTuple):
    """A line of a file of src/logpi, what stands in its place, and the tests that should fail."""

    file: str
    line: str
    instead: str
    tests: str


MUTANTS = [
    # estimators
    Mutant("estimators/returns.py", "reward + carried * later", "reward - carried * later", STEP),
    Mutant("estimators/returns.py", "jnp.where(ended, 0.0, discount)", "discount + 0 * ended", STEP),
    Mutant("estimators/returns.py", "+ discount * future - value", "+ future - value", ACTOR),
    Mutant("estimators/returns.py", "- value\n", "+ value\n", ACTOR),
    Mutant("estimators/returns.py", "jnp.where(trajectory.terminated, 0.0", "jnp.where(trajectory.truncated, 0.0", ACTOR),
    Mutant("estimators/returns.py", "discount * trace_decay * later", "trace_decay * later", ACTOR),
    Mutant("estimators/returns.py", "jnp.cumsum(log_ratio, axis=0) - log_ratio", "jnp.cumsum(log_ratio, axis=0)", STEP),
    Mutant("estimators/score_function.py", "weight) * log_prob, 0.0)", "weight) * log_prob, 1.0)", STEP),
    Mutant("estimators/score_function.py", "/ mask.shape[1]", "/ jnp.sum(mask)", ESTIMATOR),
    Mutant("estimators/score_function.py", "power * (return_ - baseline)", "power * return_ - baseline", STEP),
    Mutant("estimators/baselines.py", "keepdims=True) - running", "keepdims=True)", f"{ESTIMATOR} {STEP}"),
    Mutant("estimators/baselines.py", "keepdims=True) - mask", "keepdims=True)", f"{ESTIMATOR} {STEP}"),
    Mutant("estimators/baselines.py", "(1 - trust) * leave_one_out", "trust * leave_one_out", STEP),
    # losses and steps
    Mutant("methods/rollouts.py", "bonus = method.entropy_coefficient * entropy", "bonus = -method.entropy_coefficient * entropy", LOSSES),
    Mutant("methods/rollouts.py", "-self.surrogate - self.bonus", "-self.surrogate + self.bonus", LOSSES),
    Mutant("methods/rollouts.py", "-self.surrogate - self.bonus", "self.surrogate - self.bonus", LOSSES),
    Mutant("methods/rollouts.py", "masked_mean(old.kl(new), rows.mask)", "masked_mean(new.kl(old), rows.mask)", LOSSES),
    Mutant("methods/rollouts.py", "masked_mean(error, rows.mask)", "jnp.mean(error)", LOSSES),
    Mutant("methods/rollouts.py", "jnp.maximum(error, (kept", "jnp.minimum(error, (kept", LOSSES),
    Mutant("methods/rollouts.py", "jnp.mean(jnp.where(mask, surrogate, 0.0))", "jnp.mean(surrogate)", LOSSES),
    Mutant("methods/rollouts.py", "return advantage / scale", "return advantage * scale", ACTOR),
    Mutant("methods/rollouts.py", "target = advantage + predicted", "target = advantage", LOSSES),
    Mutant("methods/ppo.py", "jnp.minimum(ratio", "jnp.maximum(ratio", ACTOR),
    Mutant("methods/ppo.py", "1 + self.clip", "1 + 2 * self.clip", ACTOR),
    Mutant("methods/ppo.py", "> limit", "< limit", ACTOR),
    Mutant("methods/ppo.py", "joint_loss(self, learner, self.value_clip)", "joint_loss(self, learner)", LOSSES),
    Mutant("methods/ppo_penalty.py", "+ beta *", "- beta *", LOSSES),
    Mutant("methods/ppo_penalty.py", "2 * beta, halved", "beta / 2, halved", LOSSES),
    Mutant("estimators/returns.py", "jnp.minimum(jnp.exp(log_ratio), limit)", "jnp.exp(log_ratio)", ACTOR),
    Mutant("methods/descent.py", "method.value_coefficient * error", "error", LOSSES),
    Mutant("methods/descent.py", "adam.update(shortened, moments)", "adam.update(gradient, moments)", LOSSES),
    Mutant("methods/descent.py", "parameters - learning_rate", "parameters + learning_rate", LOSSES),
    Mutant("methods/natural.py", "f + damping * v", "f - damping * v", ACTOR),
    Mutant("methods/natural.py", "pull_back(curved)", "pull_back(moved)", ACTOR),
    Mutant("methods/natural.py", "0.5 * _dot(x, product(x))", "_dot(x, product(x))", ACTOR),
    Mutant("methods/natural.py", "method.conjugate_gradient_steps, method.damping", "1, method.damping", LOSSES),
    Mutant("methods/trust_region.py", "<= kl_limit", "<= 4 * kl_limit", LOSSES),
    Mutant("methods/trust_region.py", "> ascent.before", "< ascent.before", LOSSES),
    Mutant("methods/trust_region.py", "search.scale / 2", "search.scale / 4", LOSSES),
    Mutant("methods/reinforce.py", "before.kl(after)", "after.kl(before)", LOSSES),
    Mutant("methods/reinforce.py", "update(-gradient, moments)", "update(gradient, moments)", STEP),
    Mutant("methods/reinforce.py", "jnp.sqrt(self.kl_limit / ", "(self.kl_limit / ", STEP),
    Mutant("methods/reinforce.py", "self.discount, self.value_trace_decay)", "self.discount, 1.0)", LOSSES),
    Mutant("methods/reinforce.py", "if self.whiten:", "if not self.whiten:", ESTIMATOR),
    Mutant("methods/value_fitting.py", "parameters - learning_rate", "parameters + learning_rate", STEP),
    Mutant("methods/learner.py", "batch=learner.batch + 1", "batch=learner.batch", LOSSES),
    Mutant("methods/reference.py", "reward) - coefficient", "reward) + coefficient", ACTOR),
    # networks
    Mutant("networks/distributions.py", "-0.5 * standardised**2 - self.log_std", "-0.5 * standardised**2", DISTRIBUTIONS),
    Mutant("networks/distributions.py", "jnp.sum(-log_ratio +", "jnp.sum(log_ratio +", DISTRIBUTIONS),
    Mutant("networks/convolution.py", "out)[::-1, :, ::-1]", "out)[:, :, ::-1]", NETWORK),
    Mutant("networks/memory.py", "keep * state + (1 - keep)", "(1 - keep) * state + keep", NETWORK),
    Mutant("networks/memory.py", "step[..., None] == 0, 0.0, state", "step[..., None] == 0, state, state", NETWORK),
    Mutant("networks/encoder.py", "start += flatdim(part)", "start += 1", NETWORK),
    Mutant("networks/critic.py", "standardise, unflattened=unflattened)", "standardise)", NETWORK),
    Mutant("networks/critic.py", "bias = (value.network.biases[-1] * old.scale + old.offset - offset)", "bias = (value.network.biases[-1] * old.scale)", STEP),
    # samplers, seeds, workers
    Mutant("core/randomness.py", "SeedSequence([seed, stream, environment, episode])", "SeedSequence([seed, stream, environment, 0])", f"{ROLLOUT} {STREAMS}"),
    Mutant("core/randomness.py", "SeedSequence([seed, stream, environment, episode])", "SeedSequence([seed, stream, 0, episode])", ROLLOUT),
    Mutant("core/randomness.py", "default_rng([seed, stream, *indices])", "default_rng([seed, stream])", RANDOMNESS),
    Mutant("sampling/host/episodes.py", "truncated=last & ~played.terminated", "truncated=last", ROLLOUT),
    Mutant("sampling/host/streams.py", "ended = running & (group.terminated", "ended = (group.terminated", STREAMS),
    Mutant("sampling/host/streams.py", "now.episode[over] += 1", "now.episode[over] += 0", STREAMS),
    Mutant("sampling/host/unfinished.py", "rollout.action)[t, copy]", "rollout.action)[t, 0]", STREAMS),
    Mutant("sampling/host/unfinished.py", "np.asarray(x)[copies]", "np.asarray(x)[: copies.stop - copies.start]", STREAMS),
    Mutant("sampling/host/streams.py", "Stream.TRAINING, first + copy,", "Stream.TRAINING, copy,", STREAMS),
    Mutant("sampling/host/shares.py", "batch, share) for", "batch, 0) for", WORKERS),
    Mutant("sampling/host/acting.py", "by_share(noise, self._size)", "by_share(noise, len(noise))", WORKERS),
    Mutant("sampling/host/acting.py", "seen = by_share(observation, self._size)\n        if self", "seen = by_share(observation, len(noise))\n        if self", WORKERS),
    Mutant("sampling/host/places.py", "if before is not None:", "if before is None:", WORKERS),
    Mutant("sampling/host/places.py", "self._open_anew(lost)", "self._open_anew(lost[:1])", WORKERS),
    Mutant("sampling/host/sampler.py", '"lost": self._placement.count_lost()}', '"lost": 0}', WORKERS),
    Mutant("sampling/host/places.py", "first += array.shape[1]", "first += 0", STREAMS),
    Mutant("sampling/host/places.py", "(numbers[place.shares.columns], deterministic)", "(numbers, deterministic)", WORKERS),
    Mutant("sampling/host/player.py", "cut._replace(memory=memory), None", "self.trajectory, None", WORKERS),
    Mutant("sampling/host/choice.py", "cost > self._alone", "cost < self._alone", WORKERS),
    Mutant("sampling/host/sampler.py", "is_compiled = self._program.is_compiled(batch.trajectory)", "is_compiled = True", WORKERS),
    Mutant("sampling/host/placement.py", "if not alike:", "if False:", WORKERS),
    Mutant("sampling/compiled/streams.py", "beside(now.ended, new), new, old", "beside(now.ended, new), old, old", STREAMS),
    Mutant("sampling/compiled/episodes.py", "still_running = running & ~terminated", "still_running = running", ROLLOUT),
    Mutant("sampling/validity.py", "<= LARGEST) & seen", "<= LARGEST) & ~seen", BAD),
    Mutant("sampling/host/place.py", "raise EnvironmentFault(self.value)", "return self.value", BAD),
    Mutant("sampling/host/observations.py", "np.subtract(observation", "np.add(observation", OBSERVATIONS),
    Mutant("sampling/host/sampler.py", "batch=learner.batch + 1", "batch=learner.batch + 0", FAULTS),
    Mutant("methods/learner.py", "low < learner.steps[0]", "low > learner.steps[0]", LOSSES),
    # runs
    Mutant("runs/metrics.py", "[total + value, count", "[value, count", RECORDS),
    Mutant("runs/evaluation.py", "max(SHARE * counters.steps, short)", "min(SHARE * counters.steps, short)", RECORDS),
    Mutant("runs/folder.py", "counters.steps != _steps_of(path)", "counters.steps < 0", RELIABILITY),
    Mutant("runs/evaluation.py", "0.975", "0.95", LOSSES),
    Mutant("runs/evaluation.py", "axis=-1, ddof=1", "axis=-1, ddof=0", LOSSES),
    Mutant("runs/files.py", "not stat.S_ISREG(found.st_mode)", "False", RELIABILITY),
    Mutant("runs/files.py", "found.st_size > largest", "False", RELIABILITY),
    Mutant("runs/checkpoint.py", "!= zipfile.ZIP_STORED:\n        raise DamagedCheckpoint(f\"{name}", "== -1:\n        raise DamagedCheckpoint(f\"{name}", RELIABILITY),
    Mutant("runs/checkpoint.py", "not valid or not", "not valid and not", RELIABILITY),
    Mutant("runs/trust.py", "return own is not None and", "return True or", RELIABILITY),
    Mutant("runs/loop.py", "self._trackers.remove(tracker)", "pass", RELIABILITY),
    Mutant("environments/host/group.py", "flag in (0, 1)", "True", BAD),
    Mutant("runs/folder.py", "reverse=True", "reverse=False", RUNS),
    Mutant("runs/loop.py", "if self._counters.steps > self._saved", "if self._counters.steps < self._saved", RELIABILITY),
    # evaluations on the way, callbacks
    Mutant("runs/evaluator.py", "low >= self._stop_at", "evaluation.mean >= self._stop_at", EVALUATION),
    Mutant("runs/evaluator.py", "low > counters.best[0]", "evaluation.mean > counters.best[0]", EVALUATION),
    Mutant("runs/evaluator.py", "counters.evaluated_at = counters.steps", "pass", EVALUATION),
    Mutant("runs/evaluator.py", "counters.evaluated_steps += int(evaluation.lengths.sum())", "pass", EVALUATION),
    Mutant("runs/evaluator.py", "EPISODES * length <= left", "length <= left", EVALUATION),
    Mutant("sampling/host/stage.py", "self._beside = make_group(self._environment, count)", "self._beside = self._group", EVALUATION),
    Mutant("runs/loop.py", "or counters.has_reached or", "or", EVALUATION),
    Mutant("runs/callbacks.py", "self.is_stopped = True", "self.is_stopped = False", CALLBACKS),
    Mutant("runs/loop.py", "self._callbacks.evaluation(evaluation)", "pass", CALLBACKS),
    # experiments
    Mutant("experiments/sweep.py", "replace(settings, seed=seed)", "settings", SWEEP),
    Mutant("experiments/process.py", "return 2", "return 0", SWEEP),
    Mutant("experiments/statistics.py", "0.5 * (x == y)", "0.0 * (x == y)", COMPARISON),
    Mutant("experiments/statistics.py", "trim_mean(scores, 0.25", "trim_mean(scores, 0.2", COMPARISON),
    Mutant("experiments/statistics.py", "mean(x, axis) - np.mean(y, axis)", "mean(x, axis) + np.mean(y, axis)", COMPARISON),
    Mutant("experiments/statistics.py", '"samples" if is_paired', '"independent" if is_paired', COMPARISON),
    Mutant("experiments/comparison.py", "factor * values[number]", "values[number]", COMPARISON),
    Mutant("experiments/comparison.py", "fewest < FEWEST_SEEDS", "False", COMPARISON),
    Mutant("experiments/tuning.py", "difference.is_real and means[best] > means[DEFAULTS]", "True", TUNING),
    Mutant("experiments/tuning.py", "range(FRESH, FRESH + confirm)", "range(confirm)", TUNING),
    # options of environments, and what is made of runs
    Mutant("environments/options.py", "factory(**self.kwargs)", "factory()", OPTIONS),
    Mutant("environments/options.py", "digest_of(file)", "None", OPTIONS),
    Mutant("sampling/host/role.py", "replace(self.options, max", "replace(EnvironmentOptions(), max", OPTIONS),
    Mutant("runs/trust.py", "(*options, settings.wrapper)", "options", OPTIONS),
    Mutant("runs/trained.py", "seed = settings.seed", "seed = 0", OPTIONS),
    Mutant("methods/rollouts.py", "masked_mean(ratio, rows.mask) ** 2", "masked_mean(ratio, rows.mask)", DIAGNOSTICS),
    Mutant("methods/rollouts.py", "jnp.abs(ratio - 1) > clip", "ratio - 1 > clip", DIAGNOSTICS),
    Mutant("networks/heads.py", "np.where(bounded, -1.0, low),", "np.asarray(low),", DIAGNOSTICS),
    Mutant("artifacts/exporting.py", "if largest > TOLERANCE", "if False", EXPORTING),
    Mutant("artifacts/exporting.py", "policy.next_memory(observation, memory)", "memory", EXPORTING),
    Mutant("artifacts/converting.py", "policy.execute(distribution", "(distribution", EXPORTING),
    Mutant("artifacts/filming.py", "seed=self._seed + number", "seed=number", FILMING),
    Mutant("artifacts/filming.py", "                yield self._frame()", "                pass", FILMING),
    Mutant("artifacts/page.py", "return html.escape(str(text))", "return str(text)", PAGES),
    Mutant("artifacts/page.py", "{_own_ids(svg, caption)}", "{svg}", PAGES),
    Mutant("artifacts/derivation_page.py", "sides.power[t, 0] * sides.returns[t, tau]", "sides.returns[t, tau]", PAGES),
    Mutant("artifacts/derivation_page.py", "sides.mean(squares) / size", "sides.mean(squares)", PAGES),
]  # fmt: skip


def passes(tests: str, copy: Path) -> bool:
    """Whether the tests pass in the copy as it is now, and end."""
    command = [sys.executable, "-m", "pytest", "-x", "-n", "0", *tests.split()]
    environment = {"PYTHONPATH": str(copy / "src"), "PATH": "/usr/bin:/bin"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def verdict(mutant: Mutant, copy: Path) -> str:
    """`caught`, `survived`, or `not found` where the line has changed."""
    path = copy / "src" / "logpi" / mutant.file
    text = path.read_text()
    if mutant.line not in text:
        return "not found"
    path.write_text(text.replace(mutant.line, mutant.instead, 1))
    survived = passes(mutant.tests, copy)
    path.write_text(text)
    return "survived" if survived else "caught"


def main() -> int:
    """Print a line a mutant and the share that is caught; exit with 1 below 95 %.

    The control comes first: the same tests must pass while nothing is broken.
    """
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if not words or any(word in " ".join(m) for word in words)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".git", ".pytest_cache", ".venv*")
        shutil.copytree(ROOT, copy, ignore=ignored)
        for tests in dict.fromkeys(mutant.tests for mutant in chosen):
            if not passes(tests, copy):
                print(f"{tests} fails while nothing is broken")
                return 1
        for mutant in chosen:
            start = time.perf_counter()
            found.append(verdict(mutant, copy))
            seconds = time.perf_counter() - start
            print(f"{found[-1]:9} {seconds:5.0f} s  {mutant.file}: {mutant.instead}", flush=True)
    caught = found.count("caught")
    print(f"{caught} of {len(found)} caught, {caught / len(found):.1%}")
    return int(caught < 0.95 * len(found))


if __name__ == "__main__":
    sys.exit(main())
