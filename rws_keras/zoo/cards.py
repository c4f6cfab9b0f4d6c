"""Model cards, generated from what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from rws_keras import HelmholtzMachine, datasets, layers
from rws_keras.layers import StochasticLayer
from rws_keras.zoo import published

_DATASETS = {
    "digits": "scikit-learn's 8x8 digits (1,797 images)",
    "binarized_mnist": "the official binarized MNIST (50,000 / 10,000 / 10,000 images of 28x28)",
}


def family_of(stack: Sequence[StochasticLayer]) -> str:
    """The layer family of P (or Q) as the literature writes it."""
    return "/".join(dict.fromkeys(layers.label_of(layer) for layer in stack))


def nll(entry: dict, digits: int = 2) -> str:
    """A negative log-likelihood with its standard error in brackets."""
    return f"{-entry['log_likelihood']:.{digits}f} ({entry['log_likelihood_se']:.{digits}f})"


def duration(seconds: float) -> str:
    """A duration in the unit that fits: seconds below two minutes, hours from two hours on."""
    for limit, length, unit in [(120, 1, "second"), (7200, 60, "minute")]:
        if round(seconds) < limit:
            count = round(seconds / length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds / 3600:.1f} hours"


def sizes(latent_units: list[int]) -> str:
    """Sizes of the latent layers, bottom first."""
    return "-".join(map(str, latent_units))


def label(known: dict) -> str:
    """A machine as the literature calls it, such as `SBN 200-200`, from its metadata.

    The prior is named where its family is another than that of the layer below it.
    """
    prior = other_prior(known)
    return f"{known['family']} {sizes(known['latent_units'])}" + (
        f", {prior} prior" if prior else ""
    )


def other_prior(known: dict) -> str | None:
    """The family of the prior, if it is another than that of the layer below it."""
    prior = known.get("family_of_prior")
    return None if prior == known["family"].split("/")[-1] else prior


def families(machine: HelmholtzMachine) -> dict[str, str]:
    """What the metadata say of a machine's families."""
    return {
        "family": family_of(machine.p_layers[:-1]),
        "family_of_q": family_of(machine.q_layers),
        "family_of_prior": family_of(machine.p_layers[-1:]),
    }


def model_card(metadata: dict, recipe: dict | None) -> str:
    """The card of a preset as Markdown.

    Args:
        metadata: The content of `preset.json`; `files` is not needed.
        recipe: The recipe that it was trained with, if it comes from a run.
    """
    name, test = metadata["name"], metadata["test"]
    data = f"`{metadata['dataset']}`"
    if metadata["dataset"] in datasets.NAMES:
        known = f"{data} of the density-estimation benchmark"
        data = _DATASETS.get(metadata["dataset"], known)
    validation = metadata.get("validation")
    others = {
        f"validation NLL, nats{_particles(validation)}": validation,
        "independent units, test NLL, nats": metadata.get("independent_units"),
    }
    lines = [
        f"# {name}",
        "",
        f"{metadata['description']}. A Helmholtz machine with {metadata['num_parameters']:,} "
        "parameters.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {data} |",
        f"| visible units | {metadata['visible_units']} |",
        f"| latent units, bottom first | {sizes(metadata['latent_units'])} |",
        f"| P, Q | {metadata['family']}, {metadata.get('family_of_q', 'see the recipe')} |",
        *([f"| prior | {prior} |"] if (prior := other_prior(metadata)) else []),
        f"| test NLL, nats{_particles(test)} | {nll(test)} |",
        *(f"| {title} | {nll(entry)} |" for title, entry in others.items() if entry),
        "",
        "Likelihoods are estimated by importance sampling from Q with K particles per row; the "
        f"standard error over the rows is in brackets ({test['num_data']:,} test rows). The "
        "estimate of p(x) is unbiased, so its logarithm is too low on average: the true NLL is "
        f"lower than this. Effective sample size {test['ess']:.1f} on the test rows, "
        f"single-sample bound (ELBO) {test['elbo']:.2f}."
        + _on_few_rows(metadata.get("test_on_few_rows", [])),
        "",
    ]
    if literature := _literature(metadata["dataset"], label(metadata)):
        lines += [literature, ""]
    if metadata["samples"].endswith(".png"):
        lines += ["Samples from P (means of the visible units):", "", "![](samples.png)", ""]
    else:
        lines += [f"Samples from P: [`{metadata['samples']}`]({metadata['samples']}).", ""]
    lines += [
        "## How to use it",
        "",
        "```python",
        "import rws_keras",
        "",
        f'machine = rws_keras.HelmholtzMachine.from_preset("{name}")',
        f"machine.log_likelihood(x, num_particles=1000)  # x: zeros and ones, "
        f"[N, {metadata['visible_units']}]",
        "```",
        "",
        "## How it was trained",
        "",
        _training(metadata["training"], recipe)
        if recipe
        else "In Python, not with `rws-keras fit`: there is no record of the training.",
        "",
        "## Limits",
        "",
        "It models rows like those it was trained on: zeros and ones, the same variables in the "
        "same order, grey levels binarised the same way. A low score means that a row is unlike "
        "the training data, not what it is instead; simple rows, such as blank images, can score "
        "higher than normal ones. Scores of different models can be compared only on the same "
        "data.",
        "",
    ]
    return "\n".join(lines)


def _particles(entry: dict | None) -> str:
    return f" (K = {entry['num_particles']:,})" if entry else ""


def _on_few_rows(entries: list[dict]) -> str:
    """How the estimate changes with K, measured on the first rows."""
    by_rows: dict[int, list[dict]] = {}
    for entry in sorted(entries, key=lambda entry: entry["num_particles"]):
        by_rows.setdefault(int(entry["num_data"]), []).append(entry)
    return "".join(
        f" On the first {rows:,} test rows the estimate is "
        + ", ".join(
            f"{-each['log_likelihood']:.2f} with K = {each['num_particles']:,}" for each in of_rows
        )
        + "."
        for rows, of_rows in by_rows.items()
    )


def _training(training: dict, recipe: dict) -> str:
    objective = dict(recipe["objective"])
    algorithm = objective.pop("name").replace("_", " ")
    arguments = ", ".join(f"{key} = {value}" for key, value in objective.items())
    initial = recipe.get("initial_weights")
    begins = f", beginning with the weights of `{initial}`" if initial else ""
    optimizer = recipe["optimizer"]
    versions = ", ".join(f"{key} {value}" for key, value in training["versions"].items())
    return (
        f"With `{training['command']}` on {training['date']}: "
        f"{algorithm}{f' ({arguments})' if arguments else ''}{begins}, "
        f"optimizer {optimizer['name']} at {optimizer['learning_rate']:g} "
        f"({optimizer['schedule']}), batch {recipe['batch_size']}, "
        f"{training['updates']:,} updates in {training['epochs']} epochs, seed {training['seed']}. "
        f"It took {duration(training['seconds'])} of wall-clock time on a machine with "
        f"{training['machine']['cores']} cores. The epoch with the best validation likelihood "
        f"({training['best_epoch']}) was kept. Versions: {versions}. The full recipe is in "
        "[`recipe.json`](recipe.json)."
    )


def _literature(dataset: str, model: str) -> str:
    """What is published of the same machine, else the best of the data set; empty without any."""
    if figures := published.of_machine(dataset, model):
        return f"Published test NLLs of this machine: {', '.join(f.text for f in figures)}."
    if figures := published.figures(dataset):
        best = figures[0]
        return (
            f"The best of the published test NLLs that the zoo lists for this data set: "
            f"{best.nll:.2f} ({best.model}; {best.source})."
        )
    return ""
