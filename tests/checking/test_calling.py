"""How trainers call a loss, and objectives that are no sum of rewards: each against what it must be
by definition, beside a variant that is not it."""

import itertools
import json

import numpy as np
import pytest
from correct import paid_for_brevity
from helpers import one_in

import logpi
from logpi import LogpiError
from logpi.checking.cases import batches, trajectories
from logpi.checking.objectives import make_objective, objective_gradient
from logpi.checking.probes import make_probes
from logpi.checking.question import OWN_CALL
from logpi.cli import main
from logpi.core.differences import derivative
from logpi.theory.exact import softmax

CHECK = {"target": "undiscounted"}


def named(report):
    return {cause.name for cause in report.diagnosis if not cause.is_alternative}


# Objectives


def best(reward, mask):
    return (reward * mask).sum(1).max()


@pytest.mark.parametrize(
    ("probe", "function"),
    one_in(3, itertools.product(("answers", "short"), (best, paid_for_brevity))),
)
def test_the_gradient_of_an_objective_is_that_of_its_expectation(probe, function):
    """Against differences of E[f] = Σ p(batch) f(batch). Control: the gradient of the sum of
    rewards is another."""
    probe = getattr(make_probes(0.9), probe)

    def expectation(logits):
        total = 0.0
        columns = trajectories(probe, softmax(logits))
        for cases in batches(probe, columns):
            groups = objective.values(cases, 0.9).mean(axis=1)
            total += float(cases.probability @ groups)
        return total

    def gradient(objective):
        columns = trajectories(probe, probe.policy)
        return objective_gradient(objective, probe, list(batches(probe, columns)))

    objective = make_objective("objective", function, None)
    exact = gradient(objective)
    expected = derivative(expectation, probe.logits, 2.0**-9)
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-9)
    plain = make_objective("objective", lambda reward: reward.sum(1), None)
    assert np.abs(exact - gradient(plain)).max() > 0.01


def weighed(of_group):
    """Weights of ∇ log π of the sum over a group, divided by the number of groups."""

    def weights(log_prob, reward, mask, group):
        out = np.zeros(mask.shape)
        scores = (reward * mask).sum(1)
        for number in set(group.tolist()):
            members = np.flatnonzero(group == number)
            out[members] = of_group(scores[members])[:, None] * mask[members]
        return out * len(mask) / len(set(group.tolist()))

    return weights


def maximum(scores):
    return np.full(len(scores), scores.max())


def maximum_less_that_of_others(scores):
    """The baseline of an answer is the maximum without it."""
    others = [max(np.delete(scores, i), default=0.0) for i in range(len(scores))]
    return scores.max() - np.array(others)


def maximum_of_pairs(scores):
    pairs = [max(pair) for pair in itertools.combinations(scores, 2)]
    return np.full(len(scores), np.mean(pairs))


def pass_of_pairs(scores):
    """1 - C(n - c, 2) / C(n, 2), c of n answers right (Chen et al. 2021)."""
    n = len(scores)
    wrong = n - scores.sum()
    return np.full(n, 1 - wrong * (wrong - 1) / (n * (n - 1)))


@pytest.mark.parametrize(
    ("estimator", "options", "verdict"),
    [
        (weighed(maximum), {"target": "best-of-k"}, "exact"),
        (weighed(maximum_less_that_of_others), {"target": "best-of-k"}, "exact"),
        (weighed(maximum_of_pairs), {"target": "best-of-k", "k": 2}, "exact"),
        (weighed(maximum), {"target": "best-of-k", "k": 2}, "biased"),
        (weighed(pass_of_pairs), {"target": "pass-at-k", "k": 2}, "exact"),
        (weighed(pass_of_pairs), {"target": "best-of-k", "k": 2}, "biased"),
        (weighed(np.asarray), {"target": "best-of-k"}, "other-target"),
        (weighed(maximum), {"objective": best}, "exact"),
        (weighed(maximum), {"objective": paid_for_brevity}, "biased"),
    ],
)
def test_estimators_of_objectives_of_groups(estimator, options, verdict):
    assert logpi.check(estimator, **options).verdict == verdict


def less(mean_of):
    """Weights for short answers, less a mean."""

    def weights(log_prob, reward, mask, length, group):
        plain = (reward * mask).sum(1)
        shaped = plain - 0.1 * length
        same = group[:, None] == group[None, :]
        counted = {"plain": plain, "shaped": shaped, "others": shaped}[mean_of]
        if mean_of == "others":
            same = same & ~np.eye(len(plain), dtype=bool)
        mean = same @ counted / np.maximum(same.sum(1), 1)
        return (shaped - mean)[:, None] * mask

    return weights


def test_a_shaped_reward_and_its_baseline():
    """Each mistake is told from the right form and from the other mistake."""
    found = {
        kind: logpi.check(less(kind), objective=paid_for_brevity)
        for kind in ("plain", "shaped", "others")
    }
    assert found["others"].verdict == "exact"
    assert named(found["plain"]) == {"unshaped-baseline"}
    assert named(found["shaped"]) == {"own-sample-baseline"}
    plain = logpi.check(weighed(np.asarray), objective=paid_for_brevity)
    assert "undiscounted" in plain.matches


# Advantages that are computed before


def group_advantages(rewards, prompt_id):
    """Less the mean of the others of the group."""
    rewards = np.asarray(rewards)
    prompt_id = np.asarray(prompt_id)
    same = (prompt_id[:, None] == prompt_id).astype(float)
    others = same.sum(1) - 1
    return rewards - (same @ rewards - rewards) / np.maximum(others, 1)


def summed(per_token_logps, completion_mask, advantages):
    return -(advantages[:, None] * per_token_logps * completion_mask).sum(1).mean()


def token_mean(per_token_logps, completion_mask, advantages):
    tokens = (per_token_logps * completion_mask).sum(1) * advantages
    return -tokens.sum() / completion_mask.sum()


def by_all(per_token_logps, completion_mask, advantages):
    return -(advantages[:, None] * per_token_logps * completion_mask).sum()


def summed_weights(log_prob, completion_mask, advantages):
    return advantages[:, None] * completion_mask


def jax_summed(per_token_logps, completion_mask, advantages):
    import jax.numpy as jnp

    return -jnp.mean(jnp.sum(advantages[:, None] * per_token_logps * completion_mask, axis=1))


def torch_summed(per_token_logps, completion_mask, advantages):
    import torch

    return -torch.mean((advantages[:, None] * per_token_logps * completion_mask).sum(1))


@pytest.mark.parametrize("framework", one_in(2, [("numpy",), ("jax",), ("torch",)]))
def test_advantages_are_computed_before_and_are_data(framework):
    """A KL in the reward is exact as data. Control: differentiated it is not."""
    if framework == "torch":
        pytest.importorskip("torch")
    loss = {"numpy": summed_weights, "jax": jax_summed, "torch": torch_summed}[framework]
    assert logpi.check(loss, advantage=group_advantages, **CHECK).verdict == "exact"

    def penalised(reward, mask, log_prob, reference_log_prob):
        return ((reward - 0.1 * (log_prob - reference_log_prob)) * mask).sum(1)

    def leaking(log_prob, reference_log_prob, mask, reward):
        advantages = penalised(reward, mask, log_prob, reference_log_prob)
        return loss(log_prob, mask, advantages)

    options = {"framework": framework, "target": "regularised"}
    assert logpi.check(loss, advantage=penalised, **options).verdict == "exact"
    if framework != "numpy":  # whose weights are no loss
        assert logpi.check(leaking, **options).verdict == "biased"


# Micro-batches


def test_token_means_of_micro_batches():
    """Accumulated, they are no token mean of the whole batch. Control: called once it is one."""
    called = {"advantage": group_advantages, "framework": "jax", **CHECK}
    assert named(logpi.check(token_mean, **called)) == {"mean-over-all-steps"}
    assert named(logpi.check(token_mean, micro_batches=2, **called)) == {"microbatch-norm"}


@pytest.mark.slow
def test_a_sum_of_micro_batches():
    """Over tokens, divided by the same number for every part, it is exact but for a factor."""
    called = {"advantage": group_advantages, "framework": "jax", **CHECK}
    report = logpi.check(by_all, micro_batches=2, accumulate="sum", **called)
    assert (report.verdict, report.scale_name) == ("scaled", "N")


@pytest.mark.slow
def test_what_a_loss_computes_itself_is_of_one_micro_batch():
    """The mean that a loss subtracts is over the part that it sees, and is named with its token
    mean. Control: what `--advantage` computes is over the whole batch.
    """

    def less_mean(rewards):
        return rewards - rewards.mean()

    def own_mean(per_token_logps, completion_mask, rewards):
        return token_mean(per_token_logps, completion_mask, less_mean(rewards))

    options = {"framework": "jax", "micro_batches": 2, **CHECK}
    mistakes = {"microbatch-norm", "own-sample-baseline"}
    report = logpi.check(own_mean, **options)
    assert named(report) == mistakes
    assert OWN_CALL in report.notes
    report = logpi.check(token_mean, advantage=less_mean, **options)
    assert named(report) == mistakes
    assert OWN_CALL not in report.notes


# A state


class RunningBaseline:
    """The mean of all returns so far; with the own batch in it where it is updated before use."""

    def __init__(self, updated_before: bool = False):
        self.updated_before = updated_before
        self.mean = 0.0
        self.count = 0

    def __call__(self, log_prob, reward, mask):
        scores = (reward * mask).sum(1)
        if self.updated_before:
            self.update(scores)
        weights = (scores - self.mean)[:, None] * mask
        if not self.updated_before:
            self.update(scores)
        return weights

    def update(self, scores):
        for score in scores:
            self.count += 1
            self.mean += (score - self.mean) / self.count


def test_a_state_is_given_by_the_past():
    """A running baseline is exact given the past, and not where the batch itself is in it."""
    estimator = RunningBaseline()
    report = logpi.check(estimator, state=True, **CHECK)
    assert report.verdict == "exact"
    assert "given that past" in str(report)
    assert estimator.count == 0  # the user's own object stays as it is
    assert logpi.check(RunningBaseline(True), state=True, **CHECK).verdict == "scaled"
    with pytest.raises(LogpiError, match="keeps a state between calls"):
        logpi.check(estimator, **CHECK)


def test_a_module_of_torch_keeps_its_buffers():
    torch = pytest.importorskip("torch")

    class Normalised(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("square", torch.ones(()))

        def forward(self, log_prob, reward, mask):
            scores = (reward * mask).sum(1)
            loss = -((scores / self.square.sqrt())[:, None] * log_prob * mask).sum(1).mean()
            self.square = 0.9 * self.square + 0.1 * scores.square().mean()
            return loss

    report = logpi.check(Normalised(), state=True, **CHECK)
    assert report.verdict == "scaled"
    assert report.scale == pytest.approx(float(report.scale_name), rel=1e-5)


# The law of the sampler


def sampled_weights(ratio):
    def weights(log_prob, old_log_prob, sampling_log_prob, reward, mask):
        scores = (reward * mask).sum(1)
        logs = log_prob - {"old": old_log_prob}.get(ratio, sampling_log_prob)
        whole = np.exp((logs * mask).sum(1))
        if ratio == "geometric":
            whole = np.exp((logs * mask).sum(1) / mask.sum(1))
        if ratio == "cut":
            between = np.exp(((old_log_prob - sampling_log_prob) * mask).sum(1))
            whole = np.minimum(between, 2.0)
        out = (whole * scores)[:, None] * mask
        if ratio == "cut":
            out = out * np.exp(log_prob - old_log_prob)
        return out

    return weights


@pytest.mark.parametrize(
    ("ratio", "causes"),
    [
        ("sampling", set()),
        ("geometric", {"gspo-ratio"}),
        ("old", {"sampler-confused"}),
        ("cut", {"truncated-is"}),
    ],
)
def test_the_law_that_drew_the_actions(ratio, causes):
    report = logpi.check(sampled_weights(ratio), **CHECK)
    assert (report.verdict == "exact") == (not causes)
    assert named(report) == causes, str(report)


# A process of the user's own


def late(log_prob, reward, mask, step):
    """Right, but for what comes after the third step."""
    return (reward * mask).sum(1, keepdims=True) * mask * (step < 3)


def test_a_process_of_your_own_shows_what_probes_do_not(tmp_path):
    process = logpi.FiniteMDP(
        initial=[1.0, 0.0],
        transition=[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]],
        reward=[[[1.0, 0.0], [0.5, 2.0]], [[0.0, -1.0], [0.3, 0.0]]],
        terminal=[False, False],
        horizon=4,
    )
    assert logpi.check(late, **CHECK).verdict == "exact"
    report = logpi.check(late, mdp=process, **CHECK)
    assert report.verdict == "biased"
    wrong = {name for name, bias in report.probes if bias > 1e-9}
    assert wrong == {"own, N = 1", "own, N = 2"}

    def right(log_prob, reward, mask):
        return late(log_prob, reward, mask, 0 * mask)

    assert logpi.check(right, mdp=process, **CHECK).verdict == "exact"
    with pytest.raises(LogpiError, match="does not end"):
        logpi.check(right, mdp=process, target="continuing", discount=1.0)
    long = process.replace(horizon=10)
    with pytest.raises(LogpiError, match="all batches of two episodes"):
        logpi.check(weighed(lambda s: (s - s.mean()) / (len(s) - 1)), mdp=long, **CHECK)


# The command, and what cannot be checked

FILE = """
import numpy as np

def loss(per_token_logps, completion_mask, advantages):
    return -(advantages[:, None] * per_token_logps * completion_mask).sum(1).mean()

def advantage(reward, mask):
    return (reward * mask).sum(1)

def brief(length):
    return -1.0 * length

def weights(log_prob, length, mask):
    return -length[:, None] * mask

class Constant:
    def __call__(self, log_prob, reward, mask):
        return (reward * mask).sum(1, keepdims=True) * mask

constant = Constant()
"""


@pytest.mark.parametrize(
    "command",
    [
        "loss --advantage {file}:advantage --target undiscounted",
        "weights --objective {file}:brief",
        "constant --state --target undiscounted",
        "constant --mdp stay-or-leave --target undiscounted",
    ],
)
def test_the_command(command, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    arguments = command.format(file=file).split()
    assert main(["check", f"{file}:{arguments[0]}", *arguments[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "exact"


def plain(log_prob, reward, mask):
    return (reward * mask).sum(1, keepdims=True) * mask


@pytest.mark.parametrize(
    ("estimator", "options", "said"),
    [
        (plain, {"target": "objective"}, "needs a function"),
        (plain, {"target": "undiscounted", "objective": best}, "leave one of them out"),
        (plain, {"k": 2}, "k belongs to the targets"),
        (plain, {"target": "best-of-k", "k": 0}, "whole number"),
        (plain, {"target": "best-of-k", "k": 9}, "4 episodes at most"),
        (plain, {"target": "best-of-k", "layout": "episode"}, "layout 'batch'"),
        (plain, {"objective": best, "sampler": lambda logits: logits}, "leave out the sampler"),
        (plain, {"objective": lambda reward: reward}, "a finite number for the group"),
        (plain, {"objective": lambda reward: "much"}, "a finite number for the group"),
        (plain, {"objective": lambda rewards: rewards / 0}, "a finite number for the group"),
        (plain, {"objective": lambda rewrad: 0.0}, "did you mean 'reward'"),
        (plain, {"advantage": group_advantages}, "add a parameter 'advantages'"),
        (summed, {}, "--advantage FILE.py:NAME"),
        (summed, {"advantage": lambda reward: reward.T}, "one for each episode"),
        (summed, {"advantage": lambda reward: reward[:, 0] / 0}, "not finite"),
        (summed, {"advantage": lambda reward: reward.sum()}, "one for each episode"),
        (summed, {"advantage": lambda log_porb: log_porb}, "did you mean 'log_prob'"),
        (plain, {"micro_batches": 0}, "whole number"),
        (plain, {"micro_batches": 2}, "returns weights"),
        (plain, {"micro_batches": 2, "layout": "rollout"}, "layout 'batch'"),
        (plain, {"accumulate": "max"}, "mean or sum"),
        (plain, {"accumulate": "sum"}, "give their number too"),
        (plain, {"kl_coefficient": 0.2}, "does not ask for reference_log_prob"),
        (plain, {"state": True}, "--state needs an object"),
        (plain, {"mdp": "stay-or-leave"}, "mdp must be a logpi.FiniteMDP"),
    ],
)
def test_what_cannot_be_called_so_is_told(estimator, options, said):
    with pytest.raises(LogpiError, match=said):
        logpi.check(estimator, **options)


def test_a_probe_that_passes_or_fails_pays_once():
    """0 or 1, and only where an episode ends."""
    from logpi.checking.probes import pass_or_fail

    probe = pass_or_fail(make_probes(0.9).stop)
    columns = trajectories(probe, probe.policy)
    returns = columns.fields["reward"].sum(1)
    assert set(returns.tolist()) == {0.0, 1.0}
    last = columns.fields["reward"][np.arange(len(returns)), columns.fields["length"] - 1]
    np.testing.assert_array_equal(returns, last)
