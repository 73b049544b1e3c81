"""Say what is wrong with params.yaml, in one line and with exit code 2, or that nothing is."""

import argparse

from pipeline.core.cli import exit_on_user_error
from pipeline.core.errors import UserError
from pipeline.params.base import PARAMS_FILE
from pipeline.params.root import check_params_file


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.params", description=__doc__)
    parser.add_argument("--variant", metavar="NAME", help="a name that sae.variants must have")
    variant = parser.parse_args().variant

    def run() -> None:
        variants = check_params_file().sae.variants
        if variant is not None and variant not in variants:
            raise UserError(f"variant {variant!r} is not in {PARAMS_FILE}: it has {', '.join(variants)}")

    exit_on_user_error(run)
    print(f"{PARAMS_FILE} is valid")


if __name__ == "__main__":
    main()
