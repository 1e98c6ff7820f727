"""The model card of a run: a README.md whose first lines a hub of models reads."""

from logpi.methods.registry import name_of_method
from logpi.runs.evaluation import Evaluation, FinalEvaluation
from logpi.runs.settings import Settings

TASK = "reinforcement-learning"


def model_card(settings: Settings, steps: int, evaluation: FinalEvaluation) -> str:
    """What was learned, how well, and how to use it, as Markdown."""
    import yaml

    algorithm = name_of_method(settings.algorithm)
    environment = settings.environment
    found = evaluation.most_probable
    result = {
        "task": {"type": TASK, "name": TASK},
        "dataset": {"name": environment, "type": environment},
        "metrics": [{"type": "mean_reward", "name": "mean_reward", "value": _as_metric(found)}],
    }
    head = {
        "library_name": "logpi",
        "tags": [TASK, environment, algorithm],
        "model-index": [{"name": f"{algorithm}-{environment}", "results": [result]}],
    }
    return f"""---
{yaml.safe_dump(head, sort_keys=False).strip()}
---

# {algorithm} on {environment}

A policy that was trained by logpi with {steps:,} environment steps and the seed {settings.seed}.

| actions | return, mean [95 %] | episodes |
|---|---|---|
| the most probable ones | {found} | {len(found.returns)} |
| drawn from the policy | {evaluation.drawn} | {len(evaluation.drawn.returns)} |

```python
import logpi

policy = logpi.load("FOLDER")  # this folder, wherever it is
action = policy.act(observation)
```

`logpi evaluate FOLDER` plays fresh episodes. All settings are in `config.json`, the curve is in
`metrics.csv`.
"""


def _as_metric(evaluation: Evaluation) -> str:
    """Mean and standard deviation over episodes, as hubs rank them."""
    return f"{evaluation.mean:.2f} +/- {evaluation.returns.std():.2f}"
