"""Train on more and more labels to learn how many are enough: ``python -m sbic_llama.learning_curve``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from common.cli.arguments import option, parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run
from common.cli.extras import require
from common.results.rendering import lines, table_lines
from sbic_llama.evaluation.curve_finding import write_results
from sbic_llama.evaluation.learning_curve import FEWEST_ITEMS, MODULE, announce, load, measure
from sbic_llama.training.arguments import FeatureArguments, TrainArguments


@dataclass(kw_only=True)
class CurveArguments(FeatureArguments):
    """Trains the same adapter on more and more labeled texts, and estimates what further labels would give.

    All sizes share the settings, num_train_epochs among them: a smaller size takes fewer steps. Repeat the command to continue
    a stopped one, or to add sizes."""

    sizes: tuple[int, ...] = option(
        (), "numbers of labeled texts (default: 50, 100, 200, … and all of the train split)", minimum=FEWEST_ITEMS
    )

    def __post_init__(self) -> None:
        FeatureArguments.__post_init__(self)
        if len(set(self.sizes)) != len(self.sizes) or len(self.sizes) == 1:
            raise UserError("not two different numbers or more", key="sizes", expected="such as 50 100 200 400")
        if self.max_steps > 0:
            problem = "the sizes share the number of epochs"
            raise UserError(problem, key="max_steps", fix="use num_train_epochs")
        for key in ("dump_dataset", "push_to_hub"):
            if getattr(self, key):
                fix = "remove it, and train the adapter that you want to keep with sbic_llama.train"
                raise UserError("it has no effect on a learning curve", key=key, fix=fix)


def main() -> None:
    given = parse(
        CurveArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --codebook codebook.yaml --data table.csv --learning_rate 2e-4 --output_dir output/curve\n"
        f"  python -m {MODULE} --feature offensiveYN --config sbic_llama/recipes/miniature.yaml --output_dir output/curve",
    )
    require("plots")
    quiet_libraries()
    arguments = TrainArguments(
        **{field.name: getattr(given, field.name) for field in dataclasses.fields(TrainArguments)}
    )
    curve = load(arguments, given.feature or "", given.sizes)
    announce(curve, always=given.estimate_only)
    if given.estimate_only:
        return
    records, finding = write_results(curve, measure(curve))
    print("\n".join(table_lines(records)))
    print("\n" + "\n".join(lines(finding)))
    log(f"page, records and picture: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
