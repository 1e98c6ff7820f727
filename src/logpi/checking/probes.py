"""The finite MDPs on which estimators are checked, each named by the mistake that it exposes.

What hides a mistake, and so is avoided: episodes of fixed length hide every mistake at their ends;
an exact critic hides leaks across them; one state or two actions make every bias look like a scale;
a single episode hides what a batch mixes.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator

from logpi.theory.enumeration import enumerate_trajectories
from logpi.theory.exact import softmax
from logpi.theory.mdp import FiniteMDP, RewardLaw

# Numbers without a pattern, the same at every call.
SEED = 20010
# More batches than this are not enumerated.
MOST_BATCHES = 200_000
# No batch of a probe has more.
MOST_EPISODES = 8


class Design(NamedTuple):
    """A batch by the states in which its episodes start; None: drawn from μ."""

    probability: float
    starts: tuple[int | None, ...]


@dataclass(frozen=True)
class Probe:
    """A process, the policy that is differentiated, and everything an estimator may ask for."""

    name: str
    mdp: FiniteMDP
    step: Int[ndarray, " S"]
    """t of each state: the states know the time, so every step has parameters of its own."""
    logits: Float[ndarray, "O A"]
    critic: Float[ndarray, " S"]
    """A value for every state, wrong on purpose, and not zero at the end."""
    reference: Float[ndarray, "O A"]
    """Logits of the reference policy."""
    designs: tuple[Design, ...]
    behaviour: Float[ndarray, "O A"] | None = None
    """Logits of the policy that acts, where it is another one."""
    recorded: Float[ndarray, "O A"] | None = None
    """Logits of the policy that `old_log_prob` is of, where that is not the one that acts."""

    @property
    def episodes(self) -> int:
        """N, the number of episodes of a batch."""
        return len(self.designs[0].starts)

    @property
    def policy(self) -> Float[ndarray, "O A"]:
        """π(a|o)."""
        return softmax(self.logits)


def _probe(
    random: Generator,
    name: str,
    mdp: FiniteMDP,
    step: list[int],
    designs: tuple[Design, ...],
) -> Probe:
    shape = (mdp.observations, mdp.actions)
    return Probe(
        name,
        mdp,
        np.array(step),
        logits=0.7 * random.normal(size=shape),
        critic=random.normal(size=mdp.states) + 1.5,
        reference=0.7 * random.normal(size=shape),
        designs=designs,
    )


def batch_of(episodes: int) -> tuple[Design, ...]:
    """`episodes` independent ones."""
    return (Design(1.0, (None,) * episodes),)


def _stopping(random: Generator, horizon: int, discount: float, chance: float) -> FiniteMDP:
    """Action 0 ends the episode, 1 and 2 choose between places A and B; states are (t, place) and
    the end.

    With `chance` action 1 of the first step misses A. Beyond the time limit the process goes on
    from t = 1.
    """
    states = 2 * horizon + 2  # start, (1, A), (1, B), …, (horizon, A), (horizon, B), end
    transition = np.zeros((states, 3, states))
    for state in range(states - 1):
        t = (state + 1) // 2
        following = 2 * t + 1 if t < horizon else 1
        transition[state, 0, states - 1] = 1.0
        transition[state, 1, following] = 1.0
        transition[state, 2, following + 1] = 1.0
    transition[0, 1, [1, 2]] = 1 - chance, chance
    transition[-1, :, -1] = 1.0
    reward = np.round(1.5 * random.normal(size=(states, 3, states)) + 0.4, 2)
    return FiniteMDP(
        np.eye(states)[0], transition, reward, np.arange(states) == states - 1, horizon, discount
    )


def _times(mdp: FiniteMDP) -> list[int]:
    return [(state + 1) // 2 for state in range(mdp.states)]


def _bandit(reward: Float[ndarray, "S A"], discount: float) -> FiniteMDP:
    """One step: contexts, equally likely, and the end."""
    contexts, actions = reward.shape
    transition = np.zeros((contexts + 1, actions, contexts + 1))
    transition[:, :, -1] = 1.0
    paid = np.zeros((contexts + 1, actions, contexts + 1))
    paid[:-1, :, -1] = reward
    initial = np.append(np.full(contexts, 1 / contexts), 0.0)
    return FiniteMDP(initial, transition, paid, np.arange(contexts + 1) == contexts, 1, discount)


def _with_reward_offset(probe: Probe, offset: float) -> Probe:
    """Exposes a score whose expectation is not zero."""
    moved = probe.mdp.replace(reward=probe.mdp.reward + offset)
    return replace(probe, name="offset", mdp=moved)


def _rare(random: Generator, discount: float) -> Probe:
    """Exposes a floor under probabilities."""
    mdp = _bandit(np.array([[1.0, 2.0, 1e8]]), discount)
    probe = _probe(random, "rare", mdp, [0, 1], batch_of(1))
    return replace(probe, logits=np.array([[0.3, -0.4, np.log(1e-9)], [0.1, 0.0, 0.2]]))


def _prompts(random: Generator, discount: float) -> Probe:
    """Exposes a factor that depends on the difficulty of the prompt."""
    mdp = _bandit(np.array([[0.0, 1.0], [0.0, 1.0]]), discount)
    half = MOST_EPISODES // 2
    design = (Design(1.0, (0,) * half + (1,) * half),)
    probe = _probe(random, "prompts", mdp, [0, 0, 1], design)
    return replace(probe, logits=np.array([[0.4, 0.0], [0.0, 1.6], [0.0, 0.0]]))


def _answers(random: Generator, discount: float) -> Probe:
    """Exposes a normalisation by group or by length.

    Two prompts; action 0 ends the answer at once, 1 goes on for one more action. Rewards of many
    sizes.
    """
    transition = np.zeros((5, 2, 5))
    transition[:, :, 4] = 1.0
    for prompt in (0, 1):
        transition[prompt, 1] = np.eye(5)[2 + prompt]
    reward = np.round(random.normal(size=(5, 2, 5)) + 0.5, 2)
    mdp = FiniteMDP([0.5, 0.5, 0, 0, 0], transition, reward, np.arange(5) == 4, 2, discount)
    designs = (Design(0.5, (0,) * 4), Design(0.5, (1,) * 4))
    return _probe(random, "answers", mdp, [0, 0, 1, 1, 2], designs)


def _pairs(answers: Probe) -> Probe:
    """Two answers to each prompt: exposes that a group of long answers counts as another does."""
    return replace(answers, name="pairs", designs=(Design(1.0, (0, 0, 1, 1)),))


@dataclass(frozen=True)
class Probes:
    """All probes for one discount; the numbers in them are the same at every call."""

    stop: Probe
    """The policy decides when an episode ends, or the time limit does."""
    short: Probe
    """The same with two steps: for batches of three, and for streams."""
    offset: Probe
    rare: Probe
    chain: Probe
    """Three steps, always: the process of the credit matrix."""
    prompts: Probe
    answers: Probe
    pairs: Probe
    own: tuple[Probe, ...] = ()
    """The process of the user, in batches of one and two where these are not too many."""


def make_probes(discount: float, process: FiniteMDP | None = None, seed: int = SEED) -> Probes:
    """The probes with γ = `discount` and the numbers of a seed, and a process of the user's own.

    **Raises:** `LogpiError` where that has too many trajectories to enumerate.
    """
    random = np.random.default_rng(seed)
    long = _stopping(random, 3, discount, 0.25)
    brief = _stopping(random, 2, discount, 0.0)
    stop = _probe(random, "stop", long, _times(long), batch_of(1))
    short = _probe(random, "short", brief, _times(brief), batch_of(3))
    rare = _rare(random, discount)
    chain = _chain(random, discount)
    prompts = _prompts(random, discount)
    answers = _answers(random, discount)
    return Probes(
        stop=stop,
        short=short,
        offset=_with_reward_offset(stop, 5.0),
        rare=rare,
        chain=chain,
        prompts=prompts,
        answers=answers,
        pairs=_pairs(answers),
        own=_own(process, discount),
    )


def _own(process: FiniteMDP | None, discount: float) -> tuple[Probe, ...]:
    """A process of the user's own, whose states are told apart by their time: (t, s) looks as s
    does.
    """
    if process is None:
        return ()
    trajectories = len(enumerate_trajectories(process).environment)
    count = process.states
    times = process.horizon + 1
    transition = np.zeros((times * count, process.actions, times * count))
    outcomes = process.reward_value.shape[-1]
    value = np.zeros((*transition.shape, outcomes))
    probability = np.zeros(value.shape)
    probability[..., 0] = 1.0
    for t in range(times):
        now = slice(t * count, (t + 1) * count)
        next_t = min(t + 1, process.horizon)  # beyond the time limit it goes on as it was
        after = slice(next_t * count, (next_t + 1) * count)
        transition[now, :, after] = process.transition
        value[now, :, after] = process.reward_value
        probability[now, :, after] = process.reward_probability
    mdp = FiniteMDP(
        np.concatenate([process.initial, np.zeros(times * count - count)]),
        transition,
        RewardLaw(value, probability),
        np.tile(process.terminal, times),
        process.horizon,
        discount,
        np.tile(process.observation, times),
    )
    step = np.repeat(np.arange(times), count).tolist()
    probe = _probe(np.random.default_rng(SEED), "own", mdp, step, batch_of(1))
    if trajectories**2 > MOST_BATCHES:
        return (probe,)
    return probe, replace(probe, designs=batch_of(2))


def _chain(random: Generator, discount: float) -> Probe:
    """Shows how much the reward at k counts for the action at t.

    Start, two states at t = 1, two at t = 2, the end.
    """
    transition = np.zeros((6, 2, 6))
    for state in range(3):
        first = 1 if state == 0 else 3
        transition[state, 0, first] = 1.0
        transition[state, 1, first + 1] = 1.0
    transition[3:, :, 5] = 1.0
    reward = np.round(random.normal(size=(6, 2, 6)) + 0.5, 2)
    mdp = FiniteMDP(np.eye(6)[0], transition, reward, np.arange(6) == 5, 3, discount)
    return _probe(random, "chain", mdp, _times(mdp), batch_of(2))


def with_behaviour(probe: Probe) -> Probe:
    """The same, acted by another policy. Its ratios lie between all limits that people set to them,
    so that each shows, and none is so near to one that differences of a loss would reach across.
    """
    number = np.arange(probe.logits.size)
    distance = 1.3 * (number % 2) * np.cos(number)
    other = probe.logits + distance.reshape(probe.logits.shape)
    return replace(probe, name=f"{probe.name}, old policy", behaviour=other)


def with_engine(probe: Probe, keeps_policy: bool) -> Probe:
    """Acted by an inference engine whose law is neither the policy nor what `old_log_prob` is of:
    that is the policy itself, or another one.
    """
    recorded = probe.logits
    if not keeps_policy:
        number = np.arange(probe.logits.size)
        recorded = probe.logits + (0.4 * np.sin(1.0 + number)).reshape(probe.logits.shape)
    engine = with_behaviour(probe).behaviour
    told = "" if keeps_policy else ", old policy"
    return replace(probe, name=f"{probe.name}, engine{told}", behaviour=engine, recorded=recorded)


def pass_or_fail(probe: Probe) -> Probe:
    """The same with answers that are right or wrong: the step that ends an episode pays 1 where it
    paid more than most, and nothing else pays.
    """
    mdp = probe.mdp
    from_inside = ~mdp.terminal[:, None, None] & (mdp.transition > 0)
    ends = from_inside & (mdp.terminal | (probe.step >= mdp.horizon))[None, None, :]
    reward = np.where(ends & (mdp.reward > np.median(mdp.reward[ends])), 1.0, 0.0)
    return replace(probe, mdp=mdp.replace(reward=reward))


def all_pass_or_fail(probes: Probes) -> Probes:
    """Every probe with answers that are right or wrong."""
    own = tuple(map(pass_or_fail, probes.own))
    named = {name: pass_or_fail(probe) for name, probe in vars(probes).items() if name != "own"}
    return Probes(**named, own=own)
