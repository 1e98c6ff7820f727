"""TRL's RLOOTrainer and GRPOTrainer, whole: their own steps on a small Llama, with the generation
replaced by every answer that there is.

A language model that writes at most two tokens is a finite process: a state is the prompt and what
was written so far. Each batch that a trainer can see is a training step of its own, and the sum of
their gradients, weighted by probability, is its exact expectation. The gradient by the parameters
of the Llama is that by its logits, multiplied by a Jacobian of full rank: it is solved for the
latter, where the check knows the causes.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy import ndarray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from logpi.checking.cases import Cases
from logpi.checking.expectation import Moments, Situation, all_cases
from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.regularised import of_regularised
from logpi.checking.mistakes.search import diagnose
from logpi.checking.mistakes.verdict_causes import by_verdict
from logpi.checking.probes import Design, Probe
from logpi.checking.report import CheckReport
from logpi.checking.targets import Coefficients, Law, targets
from logpi.checking.verdict import SINGLE_TOLERANCE as TOLERANCE, judge
from logpi.theory.mdp import FiniteMDP

# The end of an answer, and two words. Prompts have both: of one word and the same again, attention
# makes the same hidden state.
END, TOKENS = 0, 3
PROMPTS = ("a b", "b a")
LONGEST = 2
BETA = 0.1
# What a complete answer is paid, for each prompt: binary fractions, which single precision keeps.
PAID = np.random.default_rng(7).integers(-16, 24, size=(2, TOKENS, TOKENS)) / 8
# Of the reference policy; policies have others.
REFERENCE = 1000
SEED = 1
NAMES = ("log_prob", "reward", "mask", "group", "length")


def llama(seed: int) -> LlamaForCausalLM:
    """A model of some hundred parameters, in double precision."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=TOKENS,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8,
        initializer_range=0.6,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=END,
        attn_implementation="sdpa",
    )
    return in_double(LlamaForCausalLM(config))


def in_double(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same in double precision, inside of its norms too."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LlamaRMSNorm):
                setattr(parent, name, torch.nn.RMSNorm(len(child.weight), 1e-6))
    return model.double()


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    words = Tokenizer(models.WordLevel({"<end>": END, "a": 1, "b": 2}, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<end>", padding_side="left"
    )


# The tokens that the model sees in each state: two prompts, then each prompt with a word.
STARTS = [[1, 2], [2, 1]]
CONTEXTS = [*STARTS, *([*start, word] for start in STARTS for word in (1, 2))]


def process() -> FiniteMDP:
    """The end pays for the answer; it comes with the token END, or after the longest."""
    count = len(CONTEXTS) + 1
    transition = np.zeros((count, TOKENS, count))
    reward = np.zeros((count, TOKENS, count))
    transition[:, :, -1] = 1.0
    for prompt in (0, 1):
        reward[prompt, END, -1] = PAID[prompt, END, END]
        for word in (1, 2):
            after = CONTEXTS.index([*STARTS[prompt], word])
            transition[prompt, word] = np.eye(count)[after]
            reward[after, :, -1] = PAID[prompt, word]
    initial = np.zeros(count)
    initial[:2] = 0.5
    return FiniteMDP(initial, transition, reward, np.arange(count) == count - 1, LONGEST, 1.0)


def logits_of(model: LlamaForCausalLM) -> torch.Tensor:
    """[state, token], differentiable."""
    rows = [model(input_ids=torch.tensor([context])).logits[0, -1] for context in CONTEXTS]
    return torch.stack(rows)


def table_of(model: LlamaForCausalLM) -> ndarray:
    """The logits of every state of the process; nothing is written after the end."""
    with torch.no_grad():
        return np.concatenate([logits_of(model).numpy(), np.zeros((1, TOKENS))])


def probe_of(generations: int, seed: int) -> Probe:
    """The Llama's process: batches are groups of answers to one prompt."""
    mdp = process()
    groups = tuple(Design(0.5, (prompt,) * generations) for prompt in (0, 1))
    return Probe(
        f"llama, G = {generations}",
        mdp,
        step=np.array([0, 0, 1, 1, 1, 1, 2]),
        logits=table_of(llama(seed)),
        critic=np.zeros(mdp.states),
        reference=table_of(llama(REFERENCE)),
        designs=groups,
    )


class Steps:
    """A trainer's own training steps, on answers that it is given."""

    def __init__(self, kind: type, options: dict[str, Any], generations: int, seed: int):
        self.model = llama(seed)
        self.answers: list[list[int]] = []
        configuration = {GRPOTrainer: GRPOConfig, RLOOTrainer: RLOOConfig}[kind]
        with tempfile.TemporaryDirectory() as folder:
            llama(REFERENCE).save_pretrained(folder)
            self.model.config._name_or_path = folder
            self.trainer = kind(
                model=self.model,
                reward_funcs=pay,
                args=configuration(
                    output_dir=folder,
                    per_device_train_batch_size=generations,
                    num_generations=generations,
                    max_completion_length=LONGEST,
                    gradient_checkpointing=False,
                    bf16=False,
                    use_cpu=True,
                    report_to=[],
                    disable_tqdm=True,
                    **options,
                ),
                train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS]),
                processing_class=tokenizer(),
            )
        if self.trainer.ref_model is not None:
            in_double(self.trainer.ref_model)
        self.trainer._generate_single_turn = self._give_answers
        self.trainer.current_gradient_accumulation_steps = 1  # as train() sets it

    def _give_answers(self, *_: Any) -> Any:
        """In the place of what the model would write."""
        if isinstance(self.trainer, GRPOTrainer):
            return self.answers, None
        return self.answers

    def gradient(self, prompt: int, answers: list[list[int]]) -> ndarray:
        """∂loss/∂θ of one training step."""
        self.answers = answers
        self.model.zero_grad()
        batch = [{"prompt": PROMPTS[prompt]} for _ in answers]
        self.trainer.training_step(self.model, batch, None)
        return flat([parameter.grad for parameter in self.model.parameters()])


def flat(tensors: Any) -> ndarray:
    """One row."""
    return torch.cat([tensor.ravel() for tensor in tensors]).numpy()


def pay(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
    """What each answer is paid."""
    paid = []
    for prompt, answer in zip(prompts, completion_ids, strict=True):
        first, second = (*answer, END)[:2]
        paid.append(float(PAID[PROMPTS.index(prompt), first, second]))
    return paid


def jacobian(seed: int) -> ndarray:
    """∂ logits / ∂θ, [logit, parameter], of what a softmax sees.

    Its rank is that of all directions that logits have: no two prompts share a hidden state.
    """
    model = llama(seed)
    rows = [
        flat(torch.autograd.grad(logit, [*model.parameters()], retain_graph=True))
        for logit in logits_of(model).ravel()
    ]
    by_logit = np.array(rows).reshape(len(CONTEXTS), TOKENS, -1)
    centred = (by_logit - by_logit.mean(axis=1, keepdims=True)).reshape(len(rows), -1)
    rank = np.linalg.matrix_rank(centred)
    assert rank == len(CONTEXTS) * (TOKENS - 1), f"the gradient has {rank} directions alone"
    return centred


def moments(steps: Steps, cases: list[Cases], seed: int) -> Moments:
    """Σ_batch p(batch) ĝ(batch) by the logits, an ascent direction."""
    pull = np.linalg.pinv(jacobian(seed).T)
    mean = np.zeros((len(CONTEXTS) + 1, TOKENS))
    second = 0.0
    for case in cases:
        fields = case.fields
        for number, probability in enumerate(case.probability):
            lengths = fields["length"][number]
            answers = [
                row[:length].tolist()
                for row, length in zip(fields["action"][number], lengths, strict=True)
            ]
            by_parameter = steps.gradient(int(fields["group"][number, 0]), answers)
            by_logit = -(pull @ by_parameter).reshape(-1, TOKENS)
            mean[:-1] += probability * by_logit
            second += float(probability * np.sum(by_logit**2))
    return Moments(mean, second, True, 0.0)


def measure(
    kind: type, options: dict[str, Any], names: tuple[str, ...], generations: int, seed: int
) -> Measurement:
    """One trainer on one Llama."""
    probe = probe_of(generations, seed)
    law = Law(probe.policy)
    situation = Situation(probe, "batch", law)
    columns = situation.columns()
    cases = all_cases(situation, columns)
    found = moments(Steps(kind, options, generations, seed), cases, seed)
    wanted = targets(probe, "batch", law, columns, names, Coefficients(kl=BETA))
    return Measurement(situation, columns, cases, found, wanted)


def check(kind: type, options: dict[str, Any], random_probes: int) -> CheckReport:
    """Groups of two and of three answers on one Llama, and of two on others."""
    names = NAMES
    target = "undiscounted"
    if options["beta"]:
        names = (*NAMES, "reference_log_prob")
        target = "regularised"
    measured = [measure(kind, options, names, generations, SEED) for generations in (2, 3)]
    biases = [
        judge([measure(kind, options, names, 2, SEED + number)], target, TOLERANCE).relative_bias
        for number in range(1, random_probes + 1)
    ]
    judgement = judge(measured, target, TOLERANCE)
    causes = by_verdict(judgement, target, (), names, silent=False)
    if judgement.verdict == "biased" and options["beta"]:
        causes += of_regularised(measured, target, BETA)
    if judgement.verdict == "biased" and not causes:
        causes += diagnose(measured, names, target, BETA)
    return CheckReport(
        **vars(judgement),
        target=target,
        matches=(),
        diagnosis=tuple(causes),
        variance=None,
        credit=None,
        framework="torch",
        layout="batch",
        bias_range=(min(biases), max(biases)),
    )


def audits(random_probes: int) -> Iterator[tuple[str, CheckReport]]:
    """(implementation, what was found)."""
    plain: dict[str, Any] = {"beta": 0.0}
    with_kl: dict[str, Any] = {"beta": BETA}
    doctor = {"loss_type": "dr_grpo", "scale_rewards": "none"}
    tried: list[tuple[str, type, dict[str, Any]]] = [
        ("RLOOTrainer", RLOOTrainer, plain),
        ("RLOOTrainer, β = 0.1", RLOOTrainer, with_kl),
        ("GRPOTrainer, defaults", GRPOTrainer, plain),
        ("GRPOTrainer, loss_type grpo", GRPOTrainer, plain | {"loss_type": "grpo"}),
        ("GRPOTrainer, loss_type bnpo", GRPOTrainer, plain | {"loss_type": "bnpo"}),
        ("GRPOTrainer, loss_type dr_grpo", GRPOTrainer, plain | {"loss_type": "dr_grpo"}),
        ("GRPOTrainer, Dr. GRPO", GRPOTrainer, plain | doctor),
        ("GRPOTrainer, Dr. GRPO, β = 0.1", GRPOTrainer, with_kl | doctor),
        (
            "GRPOTrainer, sequence ratio, grpo",
            GRPOTrainer,
            plain | {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        ),
    ]
    for name, kind, options in tried:
        yield name, check(kind, options, random_probes)
