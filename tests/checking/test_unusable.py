"""What cannot be checked gives one clear line and exit status 2; verdicts give 0 and 1."""

import json
import subprocess
import sys
import textwrap

import pytest

from logpi.cli import main
from logpi.core.user_files import LOADED

RIGHT = """
    import numpy as np

    def loss(log_prob, reward, discount, step):
        return np.broadcast_to(np.sum(discount**step * reward, axis=1, keepdims=True), log_prob.shape)
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """`logpi check` on the text of a file, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(text, *options, name="loss"):
        (tmp_path / "mine.py").write_text(textwrap.dedent(text))
        LOADED.pop(tmp_path / "mine.py", None)
        status = main(["check", f"mine.py:{name}", *options])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(reward): pass", "mine.py has no 'loss'"),
        ("import does_not_exist", "mine.py does not import: ModuleNotFoundError"),
        (
            "def loss(log_prob, colour): pass",
            "asks for 'colour', which does not exist. Known: log_prob, logits",
        ),
        ("def loss(*arrays): pass", "must name what it gets"),
        ("def loss(): return 0.0", "asks for nothing"),
        ("loss = 3", "not a function"),
        ("def loss(log_prob): return None", "returned nothing: return the scalar loss"),
        ("def loss(log_prob): return 'much'", "returned str"),
        ("def loss(log_prob): return log_prob.sum(0)", "returned an array of shape"),
        ("def loss(log_prob): return (log_prob.sum(), 1)", "returned tuple"),
        (
            "def loss(log_prob): return log_prob.sum() / 0 * float('nan')",
            "not finite on probe stop, N = 2",
        ),
        (
            "def loss(log_prob): raise ValueError('too much')",
            "loss raised ValueError at line 1: too much",
        ),
        ("def loss(log_prob): exit(3)", "loss raised SystemExit"),
        (
            "def loss(log_prob, reward):\n    reward += 1\n    return log_prob.sum()",
            "changes its inputs in place at line 2",
        ),
        (
            "import numpy as np\ndef loss(log_prob): return np.random.normal() * log_prob.sum()",
            "two calls with the same batch gave different results",
        ),
        (
            "calls = [0]\ndef loss(log_prob):\n    calls[0] += 1\n    return calls[0] * "
            "log_prob.sum()",
            "two calls with the same batch gave different results",
        ),
        (
            "import torch\ndef loss(log_prob): return log_prob.detach().sum()",
            "a loss without a gradient",
        ),
        (
            "import torch\ndef loss(log_prob): return torch.randn(()) * log_prob.sum()",
            "consumes randomness",
        ),
        (
            "import torch\ndef loss(log_prob, reward):\n    reward.mul_(2)\n    return "
            "log_prob.sum()",
            "changes its input 'reward' in place",
        ),
        ("import torch\ndef loss(log_prob): return torch.log(-log_prob.exp()).sum()", "not finite"),
        (
            "import jax.numpy as jnp\ndef loss(log_prob): return jnp.log(-jnp.exp(log_prob)).sum()",
            "not finite",
        ),
        (
            "import random\nimport jax.numpy as jnp\ndef loss(log_prob): return random.random() * "
            "jnp.sum(log_prob)",
            "consumes randomness",
        ),
        (
            "import jax.numpy as jnp\ndef loss(log_prob): return jnp.zeros(3)",
            "returned an array of shape (3,)",
        ),
        (
            "import sys\ndef loss(log_prob): return log_prob.sum()\nsys.exit()",
            "mine.py does not import: SystemExit",
        ),
        (
            "import numpy as np\nrecent = []\ndef loss(log_prob, reward):\n    "
            "recent.append(reward.mean())\n"
            "    return -(log_prob.sum(1) * (reward.sum(1) - np.mean(recent))).mean()",
            "keeps a state between calls",
        ),
        (
            "import torch\ndef loss(log_prob):\n"
            "    return (2 * torch.rand(log_prob.shape).round() * (log_prob - "
            "log_prob.detach())).sum()",
            "consumes randomness",
        ),
        (
            "import torch\ndef loss(log_prob): return (log_prob.sum() * 1j)",
            "returned numbers of type torch.complex",
        ),
        (
            "import numpy as np\ndef loss(log_prob): return log_prob.astype(str)",
            "returned numbers of type",
        ),
        (
            "import torch\ndef loss(log_prob): return log_prob.bfloat16().sum()",
            "numbers of type torch.bfloat16, which keep two or three digits",
        ),
        (
            "import jax.numpy as jnp\ndef loss(log_prob): return log_prob.astype(jnp.float16).sum()",
            "numbers of type float16, which keep two or three digits",
        ),
        ("import numpy as np\ndef loss(log_prob): return log_prob.all()", "returned bool"),
        (
            "import jax.numpy as jnp\ndef loss(log_prob): return jnp.all(log_prob < 1)",
            "return the scalar loss",
        ),
        (
            "import torch\ndef loss(log_prob):\n    loss = log_prob.exp().sum()\n    "
            "loss.backward()\n    return loss",
            "loss raised RuntimeError",
        ),
        (
            "import jax\ndef loss(log_prob):\n"
            "    return jax.lax.while_loop(lambda x: x < 9, lambda x: x + 1, log_prob.sum())",
            "Reverse-mode differentiation does not work",
        ),
    ],
)
def test_one_clear_line(check, text, message):
    status, out, err = check(text)
    assert status == 2
    assert message in err
    assert err.startswith("logpi: error: ")
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_no_such_file(capsys):
    assert main(["check", "nowhere.py:loss"]) == 2
    assert "nowhere.py is not a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "best"], "target must be discounted or"),
        (["--target", "reverse-kl"], "needs what the estimator does not ask for"),
        (["--discount", "1.5"], "discount must be a number in [0, 1]"),
        (["--sampler", "mine.py:no_law"], "sum to 1 over the last axis"),
        (["--sampler", "mine.py:wrong_shape"], "probabilities shaped as logits"),
        (["--sampler", "mine.py:wrong_name"], "asks for 'colour'"),
        (["--sampler", "mine.py:drawn"], "it must return probabilities, not draw"),
        (["--sampler", "mine.py:ragged"], "ragged raised ValueError"),
    ],
)
def test_unusable_options(check, options, message):
    samplers = """
    def no_law(logits): return 0.5 * np.ones_like(logits)
    def wrong_shape(logits): return np.ones(3) / 3
    def wrong_name(colour): return colour
    def drawn(logits): return np.random.dirichlet(np.ones(logits.shape[1]), len(logits))
    def ragged(logits): return [[0.5], [0.2, 0.3]]
    """
    status, _, err = check(textwrap.dedent(RIGHT) + textwrap.dedent(samplers), *options)
    assert status == 2
    assert message in err


def test_exit_status_and_json(check):
    status, out, _ = check(RIGHT)
    assert status == 0
    assert out.startswith("exact")
    status, out, _ = check(RIGHT, "--json", "--target", "conventional")
    report = json.loads(out)
    assert status == 1
    assert report["verdict"] == "other-target"
    assert report["matches"] == ["discounted"]
    keys = (
        "verdict scale relative_bias residual_after_scale cosine target matches diagnosis variance"
        " credit"
    )
    assert set(keys.split()) <= report.keys()


def test_what_the_file_prints_is_no_json(check):
    status, out, err = check(textwrap.dedent(RIGHT) + "print('imported')\n", "--json")
    assert status == 0
    assert json.loads(out)["verdict"] == "exact"
    assert "imported" in err


def test_a_loss_without_the_policy_is_said(check):
    """Control: a gradient that is zero on average alone."""
    for text in (
        "def loss(reward): return reward.sum()",
        "import jax\ndef loss(log_prob): return 0",
    ):
        status, out, _ = check(text)
        assert status == 1
        assert "no-gradient: the gradient of every batch is 0" in out
    _, out, _ = check("def loss(log_prob, mask): return (log_prob * mask).sum() / len(mask)")
    assert "no-gradient" not in out
    assert out.startswith("zero")


def test_weights_of_any_kind(check):
    for text in (
        "import torch\ndef loss(log_prob, reward, discount, step):\n"
        "    return ((discount**step * reward).sum(1, keepdim=True) + 0 * "
        "log_prob).detach().numpy()",
        "import torch\ndef loss(log_prob, reward, discount, step):\n"
        "    return ((discount**step * reward).sum(1, keepdim=True).float() + 0 * "
        "log_prob.float())",
    ):
        assert check(text)[0] == 0


def test_picture(check, tmp_path):
    assert check(RIGHT, "--plot", "pictures/credit.png")[0] == 0
    assert (tmp_path / "pictures" / "credit.png").read_bytes()[:4] == b"\x89PNG"
    status, _, err = check(RIGHT, "--plot", "credit.nonsense")
    assert status == 2
    assert "cannot be written" in err


def test_numbers_for_flags_where_code_computes_with_them(check):
    text = """
    import torch

    def loss(log_prob, reward, discount, step, done, mask):
        ends = 1 - done  # an error for bool tensors
        whole = (discount**step * reward).sum(1)
        return -(whole * (log_prob * mask).sum(1)).mean() + 0 * ends.sum()
    """
    assert check(text)[0] == 0


def test_single_precision_is_said(check):
    text = """
    import torch

    def loss(log_prob, reward, discount, step, mask):
        whole = (discount**step * reward).sum(1).float()
        return -(whole * (log_prob * mask).sum(1).float()).mean()
    """
    status, out, _ = check(text)
    assert status == 0
    assert "single precision" in out


@pytest.mark.parametrize("factor", ["1e-10", "1e10"])
@pytest.mark.parametrize("precision", ["float", "double"])
@pytest.mark.parametrize(
    ("weight", "length", "verdict"),
    [
        ("reward.sum(1)", "1", "scaled"),
        ("-reward.sum(1)", "1", "reversed"),
        ("reward.sum(1)", "mask.sum(1)", "biased"),
        ("torch.ones(len(mask))", "1", "zero"),
    ],
)
def test_a_factor_changes_no_verdict(check, factor, precision, weight, length, verdict):
    """However small or large the loss, in double and in single precision."""
    text = f"""
    import torch

    def loss(log_prob, reward, mask):
        each = {weight} * (log_prob * mask).sum(1) / {length}
        return -{factor} * each.{precision}().mean()
    """
    _, out, _ = check(text, "--target", "undiscounted")
    assert out.startswith(verdict)
    if verdict == "scaled":
        assert f"k = {float(eval(factor)):.6g}" in out


def test_what_has_the_shape_of_weights_is_said_to_be_them(check):
    """A loss that is not reduced is no error, but not what is meant. Control: one that is right."""
    text = "def loss(log_prob, reward, mask): return -reward * log_prob * mask"
    _, out, _ = check(text, "--target", "undiscounted")
    assert "taken as weights of ∇ log π" in out
    _, out, _ = check(RIGHT)
    assert "taken as weights" not in out


def test_what_a_reference_is_for(check):
    """A loss with a KL term is to be checked against the target that has one."""
    text = """
    def loss(log_prob, reference_log_prob, reward, mask):
        paid = (reward - 0.1 * (log_prob - reference_log_prob)) * mask
        return paid.sum(1, keepdims=True) * mask
    """
    _, out, _ = check(text)
    assert "--target regularised, with its β as --kl-coefficient" in out
    assert check(text, "--target", "regularised")[0] == 0
    text = "def loss(log_prob, reward, mask): return reward * mask"
    status, _, err = check(text, "--target", "regularised")
    assert status == 2
    assert "add the parameter reference_log_prob" in err


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "def computed(reward): return 'a'\ndef loss(log_prob, advantages): return advantages",
            ("--advantage", "mine.py:computed"),
            "advantages are of type <U1: return an array of numbers",
        ),
        (
            "import threading\nclass Loss:\n    def __init__(self): self.lock = threading.Lock()\n"
            "    def __call__(self, log_prob): return log_prob\nloss = Loss()",
            ("--state",),
            "the state of Loss cannot be copied",
        ),
        (
            "def loss(log_prob): return log_prob",
            ("--report", "mine.py"),
            "the file of a page must be a name in .html, got 'mine.py'",
        ),
    ],
)
def test_what_is_beside_the_loss(check, text, options, message):
    status, _, err = check(text, *options)
    assert status == 2
    assert message in err


IMPORTING = """
    import functools
    import jax
    import numpy as np
    from beside import to_go

    @jax.jit
    def compiled(log_prob, reward, discount, step, mask):
        return -((discount**step * reward).sum(1) * (log_prob * mask).sum(1)).mean()

    def shifted(log_prob, reward, discount, step, mask, shift):
        return -(((discount**step * reward).sum(1) - shift) * (log_prob * mask).sum(1)).mean()

    partial = functools.partial(shifted, shift=2.0)

    def imported(log_prob, reward, discount, step, mask):
        return -(discount**step * to_go(reward, discount) * log_prob * mask).sum(1).mean()

    class Changing:
        def __call__(self, log_prob, reward):
            reward *= 2
            return log_prob.sum()

    changing = Changing()

    def hard(logits):
        best = np.eye(3)[logits.argmax(-1)]
        return 0.8 * best + 0.2 / 3

    def single(logits):
        exponential = np.exp(logits / 0.5)
        return (exponential / exponential.sum(-1, keepdims=True)).astype(np.float32)

    def weighted(log_prob, old_log_prob, reward, discount, step, mask):
        ratio = np.exp(np.cumsum((log_prob - old_log_prob) * mask, axis=1))
        return -(ratio * discount**step * reward * mask).sum(1).mean()

    def at_half(logits, action, reward, discount, step, mask):
        scaled = logits / 0.5
        log_policy = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
        log_prob = np.take_along_axis(log_policy, action[:, :, None], 2)[:, :, 0]
        return -((discount**step * reward).sum(1) * (log_prob * mask).sum(1)).mean()
"""


@pytest.mark.parametrize(
    ("name", "options", "framework"),
    [
        ("compiled", [], "jax"),
        ("partial", ["--framework", "torch"], "torch"),
        ("imported", [], "torch"),
        ("weighted", ["--sampler", "mine.py:hard"], "numpy"),
        pytest.param("at_half", ["--sampler", "mine.py:single"], "numpy", marks=pytest.mark.slow),
    ],
)
def test_ways_in_which_people_write_functions(check, tmp_path, name, options, framework):
    (tmp_path / "beside.py").write_text(
        "import torch\n\ndef to_go(reward, discount):\n    returns, later = "
        "torch.zeros_like(reward), 0.0\n"
        "    for t in reversed(range(reward.shape[1])):\n        later = reward[:, t] + discount *"
        " later\n"
        "        returns[:, t] = later\n    return returns\n"
    )
    sys.modules.pop("beside", None)
    status, out, err = check(IMPORTING, *options, name=name)
    assert status == 0, out + err
    assert f"{framework}, batch layout" in out


ROUNDED = """
    import torch

    def loss(log_prob, reward, discount, step, mask):
        returns = ((discount**step * reward).sum(1, keepdim=True) * mask).KIND().double()
        return -(returns * log_prob).sum(1).mean()

    def mean(log_prob, reward, discount, step, mask):
        return loss(log_prob, reward, discount, step, mask) / mask.sum() * len(mask)
"""


def test_a_bias_may_come_from_half_precision_inside(check):
    """Only one as small as half precision makes it."""
    may_be = "may come from half precision"
    for name, kind, is_small in (
        ("loss", "bfloat16", True),
        ("loss", "double", False),
        ("mean", "bfloat16", False),
    ):
        _, out, err = check(ROUNDED.replace("KIND", kind), name=name)
        assert (may_be in out) == is_small, out + err


def test_a_callable_object_that_changes_its_input(check, tmp_path):
    (tmp_path / "beside.py").write_text("to_go = None\n")
    sys.modules.pop("beside", None)
    status, _, err = check(IMPORTING, "--framework", "numpy", name="changing")
    assert status == 2
    assert "Changing changes its inputs in place at line" in err


def test_torch_and_jax_stay_out_unless_used():
    code = (
        "import numpy as np, sys, logpi\n"
        "logpi.check(lambda log_prob, reward: reward)\n"
        "assert not {'torch', 'jax', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
