"""Model cards and the leaderboard, generated from what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from rws_keras import datasets, layers, resources
from rws_keras.files import read_json
from rws_keras.layers import StochasticLayer

PUBLISHED = resources.folder("zoo") / "published.json"

_DATASETS = {
    "digits": "scikit-learn's 8x8 digits (1,797 images)",
    "binarized_mnist": "the official binarized MNIST (50,000 / 10,000 / 10,000 images of 28x28)",
}


def family(model: dict, stack: str = "p") -> str:
    """The layer family of P (or Q) as the literature writes it."""
    spec = model[stack]
    specs = spec if isinstance(spec, list) else [spec]
    return "/".join(dict.fromkeys(layers.label(entry) for entry in specs))


def family_of(stack: Sequence[StochasticLayer]) -> str:
    """As `family`, of the layers of a machine."""
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


def published(dataset: str, label: str) -> dict[str, float]:
    """Published test NLLs of a model on a data set.

    Where the literature has no such model, those of its family in other sizes, else the best of
    the paper.
    """
    models = read_json(PUBLISHED).get(dataset, {})
    family_name = label.split()[0]
    relatives = {
        f"{other}: {method}": value
        for other, figures_by_method in models.items()
        if other.split()[0] == family_name
        for method, value in figures_by_method.items()
    }
    return models.get(label) or relatives or models.get("best of the paper") or {}


def figures(published_figures: dict[str, float]) -> str:
    """Published figures in a line."""
    return ", ".join(f"{method} {value:.2f}" for method, value in published_figures.items())


def model_card(metadata: dict, recipe: dict | None) -> str:
    """The card of a preset as Markdown.

    Args:
        metadata: The content of `preset.json`; `files` is not needed.
        recipe: The recipe that it was trained with, if it comes from a run.
    """
    name, test = metadata["name"], metadata["test"]
    label = f"{metadata['family']} {sizes(metadata['latent_units'])}"
    data = f"`{metadata['dataset']}`"
    if metadata["dataset"] in datasets.NAMES:
        known = f"{data} of the density-estimation benchmark"
        data = _DATASETS.get(metadata["dataset"], known)
    family_of_q = family(recipe["model"], "q") if recipe else metadata["family_of_q"]
    others = {
        "validation NLL, nats": metadata.get("validation"),
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
        f"| P, Q | {metadata['family']}, {family_of_q} |",
        f"| test NLL, nats | {nll(test)} |",
        *(f"| {title} | {nll(entry)} |" for title, entry in others.items() if entry),
        "",
        f"Likelihoods are estimated by importance sampling from Q with K = "
        f"{test['num_particles']:,} particles per row; the standard error over the "
        f"{test['num_data']:,} test rows is in brackets. The estimate of p(x) is unbiased, so its "
        "logarithm is too low on average: the true NLL is lower than this. Effective sample size "
        f"{test['ess']:.1f}, single-sample bound (ELBO) {test['elbo']:.2f}.",
        "",
    ]
    if literature := published(metadata["dataset"], label):
        lines += [
            "Published test NLLs for "
            + ("this machine: " if _is_same(metadata["dataset"], label) else "this data set: ")
            + f"{figures(literature)}.",
            "",
        ]
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


def _training(training: dict, recipe: dict) -> str:
    objective = dict(recipe["objective"])
    algorithm = objective.pop("name").replace("_", " ")
    arguments = ", ".join(f"{key} = {value}" for key, value in objective.items())
    optimizer = recipe["optimizer"]
    versions = ", ".join(f"{key} {value}" for key, value in training["versions"].items())
    return (
        f"With `{training['command']}` on {training['date']}: "
        f"{algorithm}{f' ({arguments})' if arguments else ''}, optimizer {optimizer['name']} at "
        f"{optimizer['learning_rate']:g} ({optimizer['schedule']}), batch {recipe['batch_size']}, "
        f"{training['updates']:,} updates in {training['epochs']} epochs, seed {training['seed']}. "
        f"It took {duration(training['seconds'])} of wall-clock time on a machine with "
        f"{training['machine']['cores']} cores. The epoch with the best validation likelihood "
        f"({training['best_epoch']}) was kept. Versions: {versions}. The full recipe is in "
        "[`recipe.json`](recipe.json)."
    )


def _is_same(dataset: str, label: str) -> bool:
    return label in read_json(PUBLISHED).get(dataset, {})


def leaderboard(entries: dict[str, dict]) -> str:
    """The zoo's README as Markdown, from the entries of its index."""
    lines = [
        "# The zoo",
        "",
        "Test negative log-likelihoods in nats (lower is better), with the standard error over "
        "the test rows in brackets. They are estimated with K particles per row, and are on "
        "average higher than the true figure. Published figures are from the literature, for the "
        "same machine; where there are none, for others of its family, or the best of the paper on "
        "that data set. `rws-keras zoo list` lists the presets, "
        '`HelmholtzMachine.from_preset("NAME")` loads one. '
        "This page is generated by `rws-keras zoo publish`.",
        "",
    ]
    literature = read_json(PUBLISHED)
    for dataset in dict.fromkeys(entry["dataset"] for entry in entries.values()):
        lines += [
            f"## {dataset}",
            "",
            "| preset | P | parameters | test NLL | K | published |",
            "|---|---|---|---|---|---|",
        ]
        of_dataset = [item for item in entries.items() if item[1]["dataset"] == dataset]
        for name, entry in sorted(of_dataset, key=lambda item: -item[1]["test"]["log_likelihood"]):
            label = f"{entry['family']} {sizes(entry['latent_units'])}"
            lines.append(
                f"| [{name}]({name}/README.md) | {label} | {entry['num_parameters']:,} "
                f"| {nll(entry['test'])} | {entry['test']['num_particles']:,} "
                f"| {figures(published(dataset, label))} |"
            )
        lines.append("")
        if others := literature.get(dataset, {}).get("other models"):
            lines += [
                f"Other models in the literature: {figures(others)}.",
                "",
            ]
    return "\n".join(lines)
